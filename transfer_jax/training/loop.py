"""`fit`: a whole schedule, which goes on by itself where it was stopped."""

import dataclasses
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from transfer_jax.checkpoint import Checkpoints
from transfer_jax.config import TrainConfig
from transfer_jax.freezing.proof import check_unchanged, digests
from transfer_jax.models.functional import Arrays
from transfer_jax.report.metrics import MetricsLog
from transfer_jax.report.pictures import write_pictures
from transfer_jax.report.predictions import write_predictions
from transfer_jax.report.progress import Progress, Silent
from transfer_jax.training.evaluate import evaluation_metrics
from transfer_jax.training.phase import PhaseParts, PhaseTrainer, phase_parts
from transfer_jax.training.result import PhaseResult, Result
from transfer_jax.training.run import Run, images_digest, prepare
from transfer_jax.training.state import named_leaves, restore_leaves
from transfer_jax.training.tally import Tally
from transfer_jax.training.workdir import check_workdir, claim
from transfer_jax.weights.saved import SavedModel


def fit(config: TrainConfig, workdir: str | Path, *, progress: Progress | None = None) -> Result:
    """Trains a schedule, or goes on with it where an earlier call was stopped or killed.

    Ctrl-C or SIGTERM during training writes a checkpoint first. A run that is finished is only read.

    Args:
        config: What to train.
        workdir: The run's folder; made if it is not there.
        progress: Where to report to.

    Raises:
        ValueError: If the config cannot be, or is not the one that the workdir was begun with. Nothing was
            written then.
        KeyboardInterrupt: After Ctrl-C, once a checkpoint was written.
        NonFiniteLossError: If the loss became NaN or infinite.
        FrozenChangedError: If anything changed that was to stay frozen.
    """
    workdir, progress = Path(workdir), progress or Silent()
    begun = check_workdir(config, workdir)
    run = None if begun else prepare(config, workdir, progress)
    claim(config, workdir)
    checkpoints = Checkpoints(workdir / "checkpoints")
    try:
        latest = checkpoints.latest()
        position = _Position() if latest is None else _Position(**checkpoints.progress(latest))
        if position.phase < len(config.schedule.phases):
            run = run or prepare(config, workdir, progress)
            _Loop(run, checkpoints, latest, position, progress).train()
    finally:
        checkpoints.close()
    phases = tuple(PhaseResult(**result) for result in position.results)
    return Result(workdir=workdir, phases=phases)


@dataclasses.dataclass
class _Position:
    """Where a run is: in the middle of a phase, or, while `data` is None, at the start of one.

    `images` tells whether it is still about the same images.
    """

    images: str = ""
    phase: int = 0
    data: dict[str, Any] | None = None
    tally: dict[str, Any] = dataclasses.field(default_factory=dict)
    results: list[dict[str, Any]] = dataclasses.field(default_factory=list)


class _Loop:
    """The phases that are left of a run."""

    def __init__(
        self, run: Run, checkpoints: Checkpoints, latest: int | None, position: _Position, progress: Progress
    ) -> None:
        images = images_digest(run)
        if latest is not None and position.images != images:
            raise ValueError(
                f"{run.config.images!r} has other images than when {run.workdir} was begun; "
                "bring them back, or use another workdir"
            )
        position.images = images
        self._run = run
        self._checkpoints = checkpoints
        self._latest = latest
        self._position = position
        self._progress = progress
        self._parts = [phase_parts(run, index) for index in range(len(run.config.schedule.phases))]
        self._log = MetricsLog(run.workdir / "metrics.jsonl", resume_step=latest or 0)

    def train(self) -> None:
        """Trains every phase that is left, and writes the model and the report."""
        arrays = self._run.arrays
        if self._latest is not None:
            template = {path: arrays[path] for path in self._carried()}
            arrays = {**arrays, **self._checkpoints.arrays(self._latest, "carried", template)}
        while self._position.phase < len(self._parts):
            arrays = self._train_phase(self._parts[self._position.phase], arrays)

    def _carried(self) -> list[str]:
        """Paths that earlier phases changed, and that are not in the state of the phase under way."""
        earlier = {path for parts in self._parts[: self._position.phase] for path in parts.changes}
        inside = self._parts[self._position.phase].changes if self._position.data is not None else frozenset()
        return sorted(earlier - inside)

    def _train_phase(self, parts: PhaseParts, arrays: Arrays) -> Arrays:
        """Trains a phase to its end; returns all arrays behind it."""
        trainer = PhaseTrainer(self._run, parts, arrays, self._progress)
        iterator = iter(trainer.inputs.train)
        tally = Tally(**self._position.tally)
        tally.extracted += trainer.inputs.extracted
        tally.extract_seconds += trainer.inputs.extract_seconds - trainer.inputs.compile_seconds
        tally.compile_seconds += trainer.inputs.compile_seconds
        if self._position.data is not None:
            assert self._latest is not None
            template = named_leaves(trainer.state)
            leaves = self._checkpoints.arrays(self._latest, "state", template)
            trainer.state = restore_leaves(trainer.state, leaves)
            iterator.set_state(self._position.data)
        frozen = digests(trainer.frozen)
        with _stop_asked() as stop_asked:
            self._steps(trainer, iterator, tally, arrays, stop_asked)
            check_unchanged(frozen, digests(trainer.frozen))
            self._end_phase(trainer, tally, frozen)
            if stop_asked():
                raise KeyboardInterrupt
        return trainer.all_arrays()

    def _steps(
        self,
        trainer: PhaseTrainer,
        iterator: Any,
        tally: Tally,
        arrays: Arrays,
        stop_asked: Callable[[], bool],
    ) -> None:
        """The steps that are left of a phase."""
        parts, config = trainer.parts, self._run.config
        first, epoch_steps = int(trainer.state.step), parts.steps_per_epoch
        images = self._run.batch_size
        self._progress.start(f"training {parts.phase.name}", parts.steps * images, done=first * images)
        compiled = trainer.compile_seconds
        saved = started = time.monotonic()
        for step, metrics in enumerate(trainer.train(iterator, first), first + 1):
            now = time.monotonic()
            tally.train_seconds += now - started - (trainer.compile_seconds - compiled)
            tally.add(metrics)
            self._progress.advance(images, loss=metrics["loss"])
            if step % epoch_steps == 0:
                self._end_epoch(trainer, step // epoch_steps, tally)
            tally.compile_seconds += trainer.compile_seconds - compiled
            compiled = trainer.compile_seconds
            due = stop_asked() or now - saved >= config.checkpoint_seconds
            if due and step < parts.steps:
                self._position.data, self._position.tally = iterator.get_state(), dataclasses.asdict(tally)
                carried = {path: arrays[path] for path in self._carried()}
                self._save(step, {"state": named_leaves(trainer.state), "carried": carried})
                saved = time.monotonic()
                if stop_asked():
                    raise KeyboardInterrupt
            started = time.monotonic()
        self._progress.finish()

    def _end_epoch(self, trainer: PhaseTrainer, epoch: int, tally: Tally) -> None:
        parts, every = trainer.parts, self._run.config.eval_every
        values: dict[str, Any] = {"phase": parts.phase.name, "epoch": epoch}
        self._log.write(
            self._global_step(epoch * parts.steps_per_epoch), "train", **values, **tally.end_epoch()
        )
        if every and epoch % every == 0 and epoch < parts.phase.epochs:
            self._evaluate(trainer, epoch)

    def _evaluate(self, trainer: PhaseTrainer, epoch: int) -> tuple[np.ndarray, dict[str, Any]]:
        """Predicts the held-out images, logs the scores, and returns both."""
        held_out, probabilities = self._run.evaluation, trainer.predict()
        scores = evaluation_metrics(probabilities, held_out.labels, held_out.class_names)
        step = self._global_step(epoch * trainer.parts.steps_per_epoch)
        self._log.write(step, "evaluation", phase=trainer.parts.phase.name, epoch=epoch, **scores)
        return probabilities, scores

    def _end_phase(self, trainer: PhaseTrainer, tally: Tally, frozen: Mapping[str, str]) -> None:
        """Evaluates, records and checkpoints a phase; behind the last one, writes the outcome."""
        parts, run = trainer.parts, self._run
        compiled = trainer.compile_seconds
        probabilities, scores = self._evaluate(trainer, parts.phase.epochs)
        tally.compile_seconds += trainer.compile_seconds - compiled
        trained = parts.steps * run.batch_size
        result = PhaseResult(
            name=parts.phase.name,
            trainable_parameters=sum(array.size for array in trainer.state.trainable.values()),
            optimizer_bytes=trainer.optimizer_bytes,
            boundary=trainer.inputs.start,
            extracted=tally.extracted,
            step_flops=trainer.step_flops,
            extract_seconds=tally.extract_seconds,
            compile_seconds=tally.compile_seconds,
            train_seconds=tally.train_seconds,
            images_per_second=trained / max(tally.train_seconds, 1e-9),
            metrics=scores,
        )
        trained_at = self._global_step(parts.steps)
        self._log.write(trained_at, "proof", phase=parts.phase.name, frozen=dict(frozen))
        self._position.results.append(dataclasses.asdict(result))
        self._position.phase += 1
        self._position.data, self._position.tally = None, {}
        carried: Arrays = {}
        if self._position.phase == len(self._parts):
            self._write_outcome(trainer, probabilities)
        else:
            arrays = trainer.all_arrays()
            carried = {path: arrays[path] for path in self._carried()}
        self._save(0, {"carried": carried})

    def _write_outcome(self, trainer: PhaseTrainer, probabilities: np.ndarray) -> None:
        """The trained model, its predictions on the held-out images, and the pictures."""
        run, held_out = self._run, self._run.evaluation
        saved = SavedModel(
            model=run.config.model,
            class_names=held_out.class_names,
            preprocessing=run.preprocessing,
            hidden=run.config.hidden,
        )
        saved.save(run.workdir / "model", trainer.evaluated_arrays())
        write_predictions(
            run.workdir / "predictions.csv",
            held_out.names,
            held_out.class_names,
            probabilities,
            held_out.labels,
        )
        write_pictures(run.workdir, probabilities, held_out.labels, held_out.class_names, held_out.image)

    def _global_step(self, step: int) -> int:
        """Steps since the beginning of the run, at a step of the phase under way."""
        return sum(parts.steps for parts in self._parts[: self._position.phase]) + step

    def _save(self, step: int, trees: dict[str, Arrays]) -> None:
        self._checkpoints.save(self._global_step(step), trees, dataclasses.asdict(self._position))


@contextmanager
def _stop_asked() -> Iterator[Callable[[], bool]]:
    """Takes note of Ctrl-C and SIGTERM instead of stopping at once; a second Ctrl-C does stop."""
    asked = False

    def note(number: int, frame: Any) -> None:
        nonlocal asked
        if asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked = True

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    earlier = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
