"""The best epoch of the current phase so far, by a score of the validation images, and its arrays.

The first phase keeps its last epoch, and a later phase its start, epoch 0, unless the best epoch has a clear
gain over that (see `clear_gain`), in the score that chooses or, in a later phase, in the headline score of
the task. A later phase without such an epoch is undone: its arrays return to those before it.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from transfer_jax.distributed import processes
from transfer_jax.models.flat_arrays import Arrays
from transfer_jax.runs.run_progress import RunProgress
from transfer_jax.runs.scoring import Scored
from transfer_jax.storage.checkpoints import Checkpoints
from transfer_jax.tasks import Metric
from transfer_jax.training.clear_gain import gain, gain_error, is_clear, values_without_groups
from transfer_jax.training.kept_epoch import is_better, keep_metric, keeps_best, patience, value_of
from transfer_jax.training.loop_checkpoints import restored_state
from transfer_jax.training.phase_split import PhaseSplit
from transfer_jax.training.phase_trainer import PhaseTrainer, fresh_state
from transfer_jax.training.run import Run
from transfer_jax.training.state import TrainState, named_leaves

STATE, FROZEN = "best", "best_frozen"
"""The groups of arrays in a checkpoint."""


class BestEpoch:
    """The best epoch of the current phase so far.

    The score and the number of the epoch are in the progress of the run, with the scores of its start that
    gains are compared with. The arrays that the phase trains, its statistics and moving averages are copied
    on the devices. All processes have the scores of the first one.

    Args:
        run: The run.
        position: Its progress; its `best` is written.
    """

    def __init__(self, run: Run, position: RunProgress) -> None:
        self._run, self._position = run, position
        self._metric = keep_metric(run.config, run.task)
        other = not run.config.keep_metric and run.task.headline.name != self._metric.name
        self._headline = run.task.headline if other else None
        self._state: TrainState | None = None
        self._frozen: Arrays = {}
        self._scored: Scored | None = None

    @property
    def kept(self) -> bool:
        """True if the current phase keeps its best epoch, False if it keeps the last one."""
        phase = self._run.config.schedule.phases[self._position.phase]
        return keeps_best(self._run.config, phase, len(self._run.evaluation))

    def offer(self, trainer: PhaseTrainer, epoch: int, scored: Scored) -> None:
        """Keeps an epoch if it is better than those before, and clearly better than the start of the phase.

        Args:
            trainer: The phase after the epoch.
            epoch: Number of the epoch; 0 for the start of the phase.
            scored: Predictions and scores of the validation images.
        """
        if not (self.kept or patience(self._run.config, trainer.parts.phase)):
            return
        metric, best = self._metric, self._position.best
        value = self._value(scored)
        if best and not is_better(metric, value, best["value"]):
            return
        found: dict[str, Any] = {"epoch": epoch, "value": value}
        start, leader = best.get("start", {}), best.get("leader", best)
        if epoch == 0:
            start = self._start(value, scored)
        elif start:
            found |= self._gains(value, scored, start)
        if not leader or is_better(metric, value, leader["value"]):
            leader = found
        if "gain" in found and not any(is_clear(*gains) for gains in _gains_and_errors(found)):
            best["leader"] = leader
            return
        self._position.best = {
            **found,
            "leader": leader,
            "start": start,
            "step": int(trainer.state.step),
            "frozen_depth": trainer.parts.frozen_depth,
            "metric": metric.name,
            "has_arrays": self.kept,
        }
        if self.kept:
            state = dataclasses.replace(trainer.state, opt_state=None)
            self._state = jax.tree.map(jnp.copy, state)
            self._frozen = {path: trainer.frozen[path] for path in _frozen_paths(trainer.parts)}
            self._scored = None if start else scored

    def is_over(self, epoch: int) -> bool:
        """Returns True if the phase ends after an epoch, because there was no better one for too long."""
        limit = patience(self._run.config, self._run.config.schedule.phases[self._position.phase])
        best = self._position.best
        return limit > 0 and bool(best) and epoch - best.get("leader", best)["epoch"] >= limit

    def is_earlier(self, epoch: int, scored: Scored) -> bool:
        """Returns True if the phase, at its end, keeps an earlier epoch than its last one.

        The first phase does if the gain over its last epoch is clear, or if it ends early.

        Args:
            epoch: Number of the last epoch.
            scored: Predictions and scores of the validation images after it.
        """
        position, best = self._position, self._position.best
        if not (self.kept and best) or best["epoch"] == epoch:
            return False
        if position.phase or epoch < self._run.config.schedule.phases[0].epochs:
            return True
        self._complete()
        value = self._value(scored)
        found = {
            "gain": gain(self._metric, best["value"], value),
            "gain_error": gain_error(best.get("values", []), self._values_without_groups(scored)[0]),
        }
        if not is_clear(found["gain"], found["gain_error"]):
            leader = {"epoch": best["epoch"], "value": best["value"], **found}
            position.best = {**best, "epoch": epoch, "value": value, "leader": leader}
            return False
        best.update(found)
        return True

    def needs_new_trainer(self) -> bool:
        """Returns True if the frozen depth has changed since the best epoch."""
        return self._position.span_start > self._position.best["step"]

    @property
    def frozen(self) -> Arrays:
        """The arrays that the phase changes, but that were frozen in the best epoch."""
        return self._frozen

    def restore(self, trainer: PhaseTrainer) -> None:
        """Replaces the arrays of a phase, at the frozen depth of the best epoch, by those of that epoch."""
        assert self._state is not None
        trainer.restore(self._state, self._frozen)
        self.forget()

    def forget(self) -> None:
        """Frees the arrays, at the end of a phase."""
        self._state, self._frozen, self._scored = None, {}, None

    def _complete(self) -> None:
        """Adds the scores without each group of images of the best epoch, which the first phase needs.

        They are computed when they are used or saved, and not in each epoch, which may be short.
        """
        if self._scored is not None:
            self._position.best["values"] = self._values_without_groups(self._scored)[0]
            self._scored = None

    def _value(self, scored: Scored) -> float:
        """Returns the score that chooses, of the first process."""
        return float(_of_first_process(value_of(self._metric, scored.scores)))

    def _start(self, value: float, scored: Scored) -> dict[str, Any]:
        """Returns what the gains of a phase are compared with, from the scores before it."""
        values = self._values_without_groups(scored)
        found: dict[str, Any] = {"value": value, "values": values[0]}
        if self._headline is not None:
            found["headline"] = {"value": _value_or_nan(self._headline, scored), "values": values[1]}
        return found

    def _gains(self, value: float, scored: Scored, start: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the gains over the start of a phase, with their standard errors."""
        values = self._values_without_groups(scored)
        found: dict[str, Any] = {
            "gain": gain(self._metric, value, start["value"]),
            "gain_error": gain_error(values[0], start["values"]),
        }
        if self._headline is not None and "headline" in start:  # Earlier versions do not have it.
            then = start["headline"]
            found["headline"] = {
                "metric": self._headline.name,
                "gain": gain(self._headline, _value_or_nan(self._headline, scored), then["value"]),
                "gain_error": gain_error(values[1], then["values"]),
            }
        return found

    def _values_without_groups(self, scored: Scored) -> list[list[float]]:
        """Returns what `clear_gain.values_without_groups` returns in the first process.

        The scores are the one that chooses and, if there is another one, the headline score.
        """
        images = self._run.evaluation
        metrics = [self._metric, *([] if self._headline is None else [self._headline])]
        found = values_without_groups(
            self._run.task, metrics, scored.predictions, images.labels, images.weights
        )
        return _of_first_process(found).tolist()

    def trees(self) -> dict[str, Arrays]:
        """Returns the arrays as groups of a checkpoint, and completes the progress of the run."""
        self._complete()
        if self._state is None:
            return {}
        return {STATE: named_leaves(self._state), FROZEN: self._frozen}

    def load(self, checkpoints: Checkpoints, step: int, arrays: Arrays) -> None:
        """Reads the arrays from a checkpoint inside of the current phase.

        Args:
            checkpoints: The checkpoints.
            step: Step of the checkpoint.
            arrays: All arrays of the model, for their shapes.
        """
        best = self._position.best
        if not best.get("has_arrays") or best["metric"] != self._metric.name:
            if self.kept:
                self._position.best = {}  # Started with keep_epoch="last" or another score: later ones count.
            return
        parts = self._run.parts(self._position.phase, best["frozen_depth"])
        template = dataclasses.replace(fresh_state(self._run, parts, arrays)[0], opt_state=None)
        self._state = restored_state(checkpoints, step, STATE, template)
        paths = _frozen_paths(parts)
        self._frozen = checkpoints.arrays(step, FROZEN, {path: arrays[path] for path in paths})


def _frozen_paths(parts: PhaseSplit) -> list[str]:
    """Returns the paths of the arrays that a phase with a controller changes at other frozen depths only."""
    return sorted(parts.changes - parts.state_paths) if parts.phase.controller else []


def _value_or_nan(metric: Metric, scored: Scored) -> float:
    """Returns a score, of the first process; NaN if it has no value."""
    value = metric.of(scored.scores)
    return float(_of_first_process(np.nan if value is None else value))


def _gains_and_errors(found: Mapping[str, Any]) -> Iterator[tuple[float, float]]:
    """Yields the gains of an epoch with their standard errors, that of the headline score if it is known."""
    yield found["gain"], found["gain_error"]
    headline = found.get("headline", {})
    if headline.get("gain_error"):
        yield headline["gain"], headline["gain_error"]


def _of_first_process(values: float | np.ndarray) -> np.ndarray:
    """Returns the values of the first process, so that all processes decide the same."""
    found = np.array(values, np.float64)
    return np.asarray(processes.sum_over_processes(found if processes.is_first() else np.zeros_like(found)))
