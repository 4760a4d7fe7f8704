"""The phases of a run, one after another: steps, epochs, moves of the frozen depth, checkpoints in between."""

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from transfer_jax.storage import workdir_files
from transfer_jax.distributed import processes
from transfer_jax.storage.checkpoints import Checkpoints
from transfer_jax.data import ImageDataset
from transfer_jax.freezing.freeze_check import array_hashes, check_unchanged
from transfer_jax.models.flat_arrays import Arrays
from transfer_jax.report.metrics import MetricsLog
from transfer_jax.report.progress import Progress
from transfer_jax.report.trackers import Trackers
from transfer_jax.training.background_compile import BackgroundCompiler
from transfer_jax.runs.freeze_record import span, write_freeze_record
from transfer_jax.runs.adaptive import AdaptiveControl
from transfer_jax.training.evaluation import evaluation_metrics
from transfer_jax.runs.goodput import Goodput, Trace
from transfer_jax.runs.interrupt import Terminated, stop_asked
from transfer_jax.runs.artifacts import write_outcome, write_phases
from transfer_jax.training.phase_split import PhaseSplit
from transfer_jax.training.phase_trainer import Ended, PhaseTrainer
from transfer_jax.runs.run_progress import RunProgress
from transfer_jax.runs.checkpointing import restored_arrays, restored_end, restored_state
from transfer_jax.runs.result import PhaseResult
from transfer_jax.training.run import Run, images_digest
from transfer_jax.runs.checkpointing import Saver
from transfer_jax.training.step import WISHES
from transfer_jax.runs.phase_totals import PhaseTotals


class Loop:
    """The phases that are left of a run.

    Args:
        run: What is trained.
        checkpoints: Those of its workdir.
        latest: Step of the one to go on from, if there is one.
        position: How far the run is, as that checkpoint says; it is moved on.
        progress: Where to report to.
        goodput: What has counted the run's time so far.
        trace: What records steps, if anything does.

    Raises:
        ValueError: If the images are not those that the run was begun with.
    """

    def __init__(
        self,
        run: Run,
        checkpoints: Checkpoints,
        latest: int | None,
        position: RunProgress,
        progress: Progress,
        goodput: Goodput,
        trace: Trace,
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
        self._goodput = goodput
        self._trace = trace
        self._saver = Saver(run, checkpoints, position, goodput)
        self._ahead = BackgroundCompiler(run)
        self._phases = [run.parts(index) for index in range(len(run.config.schedule.phases))]
        self._trackers = Trackers(
            run.config.trackers if processes.is_first() else (),
            run.workdir,
            run.config.to_json(),
            resumed=latest is not None,
        )
        self._log = MetricsLog(
            run.workdir / workdir_files.METRICS, resume_step=latest or 0, trackers=self._trackers
        )

    def train(self) -> None:
        """Trains every phase that is left, and writes the model and the report."""
        arrays, ended = self._run.arrays, None
        try:
            if self._latest is not None:
                where = (self._run, self._checkpoints, self._latest, self._position)
                arrays = restored_arrays(*where)
                ended = restored_end(*where, arrays)
            with self._goodput.on("other"):
                while self._position.phase < len(self._phases):
                    trainer = self._train_phase(arrays, ended)
                    arrays, ended = trainer.final_arrays(), trainer.ended()
        finally:
            self._trace.end()
            self._ahead.wait()
            self._trackers.close(finished=self._position.phase == len(self._phases))

    def _train_phase(self, arrays: Arrays, ended: Ended | None) -> PhaseTrainer:
        """Trains a phase to its end, in one span for each place of the frozen depth."""
        position = self._position
        began = self._began(arrays)
        parts = self._run.parts(position.phase, position.frozen_depth)
        self._ahead.wait()
        trainer = self._trainer(parts, arrays, ended, began)
        for following in self._phases[position.phase + 1 : position.phase + 2]:
            self._ahead.start(following)
        tally = PhaseTotals(**position.tally)
        tally.add_inputs(trainer.inputs)
        data = position.data
        if data is not None:
            assert self._latest is not None
            trainer.state = restored_state(self._checkpoints, self._latest, "state", trainer.state)
        conductor = AdaptiveControl(position, self._log, self._global_step)
        with stop_asked() as stop:
            while True:
                before, iterator = array_hashes(trainer.frozen), iter(trainer.inputs.train)
                if data is not None:
                    iterator.set_state(data)
                save = functools.partial(self._saver.under_way, trainer, iterator, tally, arrays, began)
                frozen_depth = self._span(trainer, iterator, tally, conductor, save, stop)
                after = array_hashes(trainer.frozen)
                check_unchanged(before, after)
                step = int(trainer.state.step)
                position.spans.append(span(trainer, position.span_start, step, before, after))
                if frozen_depth is None:
                    break
                data, position.frozen_depth, position.span_start = iterator.get_state(), frozen_depth, step
                arrays = trainer.all_arrays()
                parts = self._run.parts(position.phase, frozen_depth)
                trainer = self._trainer(parts, arrays, trainer.ended(), began)
                tally.add_inputs(trainer.inputs)
            self._end_phase(trainer, tally, after)
            asked = stop()
            wishes = np.array([asked is not None, isinstance(asked, Terminated)])
            if (stopping := _stopping(*processes.sum_over_processes(wishes))) is not None:
                raise stopping
        return trainer

    def _trainer(self, parts: PhaseSplit, arrays: Arrays, ended: Ended | None, began: Arrays) -> PhaseTrainer:
        with self._goodput.on("extract"):
            trainer = PhaseTrainer(self._run, parts, arrays, self._progress, ended, began)
            self._goodput.move(trainer.inputs.compile_seconds, "extract", "compile")
        return trainer

    def _span(
        self,
        trainer: PhaseTrainer,
        iterator: Any,
        tally: PhaseTotals,
        conductor: AdaptiveControl,
        save: Callable[[int], None],
        stop: Callable[[], KeyboardInterrupt | None],
    ) -> int | None:
        """The steps to the next move of the frozen depth, which is returned, or to the end of the phase."""
        parts, config = trainer.parts, self._run.config
        first, epoch_steps = int(trainer.state.step), parts.steps_per_epoch
        images = self._run.batch_size
        self._progress.start(f"training {parts.phase.name}", parts.steps * images, done=first * images)
        compiled = trainer.compile_seconds
        saved = started = time.monotonic()
        frozen_depth = None

        def wishes() -> dict[str, float]:
            asked, late = stop(), time.monotonic() - saved >= config.checkpoint_seconds
            return {"stop": asked is not None, "terminate": isinstance(asked, Terminated), "save": late}

        def watched(step: int) -> bool:
            return conductor.watches(parts, step, config.measure_every)

        due, stopping = False, None
        scale = functools.partial(conductor.multipliers, trainer)
        steps = trainer.train(iterator, first, scale, wishes, watched)
        for step, metrics in enumerate(self._timed(trainer, steps), first + 1):
            now = time.monotonic()
            self._goodput.save(self._run.workdir, now=False)
            self._trace.step()
            agreed = {name: metrics.pop(name) for name in WISHES}
            stopping = stopping or _stopping(agreed["stop"], agreed["terminate"])
            due = due or stopping is not None or agreed["save"] > 0
            tally.train_seconds += now - started - (trainer.compile_seconds - compiled)
            tally.add(metrics, trainer.block_rates, trainer.images)
            self._progress.advance(images, loss=metrics["loss"])
            if step % epoch_steps == 0:
                self._end_epoch(trainer, step // epoch_steps, tally)
            conductor.log(trainer, step, config.measure_every)
            frozen_depth = conductor.next_frozen_depth(trainer, step)
            tally.compile_seconds += trainer.compile_seconds - compiled
            compiled = trainer.compile_seconds
            if due and not trainer.unread and step < parts.steps and frozen_depth is None:
                save(self._global_step(step))
                saved, due = time.monotonic(), False
                if stopping is not None:
                    raise stopping
            if frozen_depth is not None:
                break
            started = time.monotonic()
        self._progress.finish()
        return frozen_depth

    def _timed(self, trainer: PhaseTrainer, steps: Iterator[dict[str, float]]) -> Iterator[dict[str, float]]:
        """The steps, whose time counts as theirs, less compiling and the wait for their input."""
        while True:
            compiled, waited = trainer.compile_seconds, trainer.waited
            with self._goodput.on("step"):
                metrics = next(steps, None)
                self._goodput.move(trainer.compile_seconds - compiled, "step", "compile")
                self._goodput.move(trainer.waited - waited, "step", "wait")
            if metrics is None:
                return
            yield metrics

    def _began(self, arrays: Arrays) -> Arrays:
        """What the phase under way changes as it was at its start, if it interpolates."""
        parts = self._phases[self._position.phase]
        if parts.phase.interpolate == 1:
            return {}
        began = {path: arrays[path] for path in sorted(parts.changes)}
        if self._position.data is None:
            return began
        assert self._latest is not None
        return self._checkpoints.arrays(self._latest, "began", began)

    def _end_epoch(self, trainer: PhaseTrainer, epoch: int, tally: PhaseTotals) -> None:
        parts, every = trainer.parts, self._run.config.eval_every
        values: dict[str, Any] = {"phase": parts.phase.name, "epoch": epoch, "frozen_depth": parts.frozen_depth}
        self._log.write(
            self._global_step(epoch * parts.steps_per_epoch), "train", **values, **tally.end_epoch()
        )
        if every and epoch % every == 0 and epoch < parts.phase.epochs:
            self._evaluate(trainer, epoch)

    def _evaluate(self, trainer: PhaseTrainer, epoch: int) -> tuple[np.ndarray, dict[str, Any]]:
        """Predicts the held-out images, logs the scores, and returns both."""
        return self._score(trainer, epoch, "evaluation", self._run.evaluation, trainer.predict)

    def _score(
        self,
        trainer: PhaseTrainer,
        epoch: int,
        kind: str,
        dataset: ImageDataset,
        predict: Callable[[], np.ndarray],
    ) -> tuple[np.ndarray, dict[str, Any]]:
        with self._goodput.on("evaluate"):
            probabilities = predict()
            truth = (dataset.labels, dataset.class_names, dataset.weights)
            scores = evaluation_metrics(probabilities, *truth)
        step = self._global_step(epoch * trainer.parts.steps_per_epoch)
        self._log.write(step, kind, phase=trainer.parts.phase.name, epoch=epoch, **scores)
        return probabilities, scores

    def _end_phase(self, trainer: PhaseTrainer, tally: PhaseTotals, frozen: dict[str, str]) -> None:
        """Evaluates, records and checkpoints a phase; behind the last one, writes the outcome."""
        parts, run, position = trainer.parts, self._run, self._position
        step, compiled = trainer.programs.step, trainer.compile_seconds
        probabilities, scores = self._evaluate(trainer, parts.phase.epochs)
        if run.config.score_training and position.phase + 1 == len(self._phases):
            predict = functools.partial(trainer.predict, training=True)
            self._score(trainer, parts.phase.epochs, "training_scores", run.train, predict)
        self._goodput.move(trainer.compile_seconds - compiled, "evaluate", "compile")
        tally.compile_seconds += trainer.compile_seconds - compiled
        step_seconds = tally.train_seconds / parts.steps
        self._goodput.exchange = trainer.exchange_seconds() / max(step_seconds, 1e-9)
        result = PhaseResult(
            name=parts.phase.name,
            trainable_parameters=sum(array.size for array in trainer.state.trainable.values()),
            optimizer_bytes=trainer.optimizer_bytes,
            boundary=trainer.inputs.start,
            extracted=tally.extracted,
            step_flops=None if step is None else 2 * step.multiply_adds,
            extract_seconds=tally.extract_seconds,
            compile_seconds=tally.compile_seconds,
            train_seconds=tally.train_seconds,
            images_per_second=parts.steps * run.batch_size / max(tally.train_seconds, 1e-9),
            metrics=scores,
        )
        self._log.write(self._global_step(parts.steps), "proof", phase=parts.phase.name, frozen=frozen)
        if processes.is_first():
            write_freeze_record(run.workdir, trainer, position.spans, frozen)
        position.next_phase(dataclasses.asdict(result))
        write_phases(run.workdir, position.results)
        if position.phase == len(self._phases):
            model = {path: processes.to_host(array) for path, array in trainer.evaluated_arrays().items()}
            if processes.is_first():
                write_outcome(run, model, probabilities)
                pictures = sorted(run.workdir.glob("*.png"))
                self._trackers.finish(self._global_step(0), scores, pictures)
        self._saver.ended(trainer, self._global_step(0))

    def _global_step(self, step: int) -> int:
        """Steps since the beginning of the run, at a step of the phase under way."""
        return sum(parts.steps for parts in self._phases[: self._position.phase]) + step


def _stopping(stop: float, terminate: float) -> KeyboardInterrupt | None:
    """What to raise, when any process was told to stop."""
    if not stop:
        return None
    return Terminated() if terminate else KeyboardInterrupt()
