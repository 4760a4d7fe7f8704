"""The best epoch of the current phase so far, by a score of the validation images, and its arrays.

Epoch 0 is the start of a phase after the first one. If no epoch is better, the phase is undone: its arrays
return to those before it.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from transfer_jax.distributed import processes
from transfer_jax.models.flat_arrays import Arrays
from transfer_jax.runs.run_progress import RunProgress
from transfer_jax.storage.checkpoints import Checkpoints
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

    The score and the number of the epoch are in the progress of the run. The arrays that the phase trains,
    its statistics and moving averages are copied on the devices. All processes have the same score.

    Args:
        run: The run.
        position: Its progress; its `best` is written.
    """

    def __init__(self, run: Run, position: RunProgress) -> None:
        self._run, self._position = run, position
        self._metric = keep_metric(run.config, run.task)
        self._state: TrainState | None = None
        self._frozen: Arrays = {}

    @property
    def kept(self) -> bool:
        """True if the current phase keeps its best epoch, False if it keeps the last one."""
        phase = self._run.config.schedule.phases[self._position.phase]
        return keeps_best(self._run.config, phase, len(self._run.evaluation))

    def offer(self, trainer: PhaseTrainer, epoch: int, scores: Mapping[str, Any]) -> None:
        """Keeps an epoch if it is better than all before it.

        Args:
            trainer: The phase after the epoch.
            epoch: Number of the epoch; 0 for the start of the phase.
            scores: Scores of the validation images.
        """
        if not (self.kept or patience(self._run.config, trainer.parts.phase)):
            return
        value, best = _of_first_process(value_of(self._metric, scores)), self._position.best
        if best and not is_better(self._metric, value, best["value"]):
            return
        before = value if epoch == 0 else best.get("before")
        self._position.best = {
            "epoch": epoch,
            "step": int(trainer.state.step),
            "frozen_depth": trainer.parts.frozen_depth,
            "metric": self._metric.name,
            "value": value,
            "before": before,
            "has_arrays": self.kept,
        }
        if self.kept:
            state = dataclasses.replace(trainer.state, opt_state=None)
            self._state = jax.tree.map(jnp.copy, state)
            self._frozen = {path: trainer.frozen[path] for path in _frozen_paths(trainer.parts)}

    def is_over(self, epoch: int) -> bool:
        """Returns True if the phase ends after an epoch, because there was no better one for too long."""
        limit = patience(self._run.config, self._run.config.schedule.phases[self._position.phase])
        return limit > 0 and bool(self._position.best) and epoch - self._position.best["epoch"] >= limit

    def is_earlier_than(self, epoch: int) -> bool:
        """Returns True if the phase, at the end of its last epoch, keeps an earlier one."""
        best = self._position.best
        return self.kept and bool(best) and best["epoch"] < epoch

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
        self._state, self._frozen = None, {}

    def trees(self) -> dict[str, Arrays]:
        """Returns the arrays as groups of a checkpoint."""
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
        if not best.get("has_arrays"):
            if self.kept:
                self._position.best = {}  # Started with keep_epoch="last": only the epochs to come count.
            return
        parts = self._run.parts(self._position.phase, best["frozen_depth"])
        template = dataclasses.replace(fresh_state(self._run, parts, arrays)[0], opt_state=None)
        self._state = restored_state(checkpoints, step, STATE, template)
        paths = _frozen_paths(parts)
        self._frozen = checkpoints.arrays(step, FROZEN, {path: arrays[path] for path in paths})


def _frozen_paths(parts: PhaseSplit) -> list[str]:
    """Returns the paths of the arrays that a phase with a controller changes at other frozen depths only."""
    return sorted(parts.changes - parts.state_paths) if parts.phase.controller else []


def _of_first_process(value: float) -> float:
    """Returns the value of the first process, so that all processes decide the same."""
    return float(processes.sum_over_processes(np.array(value if processes.is_first() else 0.0)))
