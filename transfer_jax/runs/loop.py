"""The loop over the phases of a run: steps, epochs, frozen depths, the epoch that is kept, checkpoints."""

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from transfer_jax.distributed import processes
from transfer_jax.distributed.agreement import FlagAgreement
from transfer_jax.freezing.freeze_check import array_hashes, frozen_unchanged
from transfer_jax.models.flat_arrays import Arrays
from transfer_jax.report.metrics_log import MetricsLog
from transfer_jax.report.progress import Progress
from transfer_jax.report.trackers import Trackers
from transfer_jax.runs.adaptive import AdaptiveControl
from transfer_jax.runs.artifacts import write_artifacts, write_phases
from transfer_jax.runs.best_epoch import BestEpoch
from transfer_jax.runs.checkpointing import Saver, restored_arrays, restored_end
from transfer_jax.runs.decorations import draw_run, drawn_plots, write_report
from transfer_jax.runs.epoch_totals import EpochTotals
from transfer_jax.runs.freeze_record import span, write_freeze_record
from transfer_jax.runs.goodput import Goodput, Trace
from transfer_jax.runs.interrupt import StopRequest, stop_exception, stop_flags, stop_requested
from transfer_jax.runs.phase_clock import PhaseClock
from transfer_jax.runs.phase_end import phase_result
from transfer_jax.runs.run_predictions import stream_predictions
from transfer_jax.runs.run_progress import RunProgress
from transfer_jax.runs.scoring import Scored, Scoring
from transfer_jax.storage import workdir_files
from transfer_jax.storage.checkpoints import SavedCheckpoints
from transfer_jax.tasks.top_predictions import TopPredictions
from transfer_jax.training.background_compile import BackgroundCompiler
from transfer_jax.training.kept_epoch import validation_interval
from transfer_jax.training.loop_checkpoints import restored_state
from transfer_jax.training.phase_trainer import PhaseEnd, PhaseTrainer
from transfer_jax.training.run import Part, Run


class Loop:
    """The loop over the remaining phases of a run.

    Args:
        run: The run.
        checkpoints: The checkpoints in its workdir.
        latest: Step of the checkpoint to resume from; None starts the run.
        position: The run's progress in that checkpoint; it is updated.
        progress: Receives the progress of extraction and training.
        goodput: The run's clock.
        trace: The trace of some steps.
    """

    def __init__(
        self,
        run: Run,
        checkpoints: SavedCheckpoints,
        latest: int | None,
        position: RunProgress,
        progress: Progress,
        goodput: Goodput,
        trace: Trace,
    ) -> None:
        self._run = run
        self._checkpoints = checkpoints
        self._latest = latest
        self._position = position
        self._progress = progress
        self._goodput = goodput
        self._trace = trace
        self._best = BestEpoch(run, position)
        self._saver = Saver(run, checkpoints, position, goodput, self._best)
        self._background = BackgroundCompiler(run)
        self._phases = [run.parts(index) for index in range(len(run.config.schedule.phases))]
        self._trackers = Trackers(
            run.config.trackers if processes.is_first() else (),
            run.workdir,
            run.config.to_json(),
        )
        self._log = MetricsLog(
            run.workdir / workdir_files.METRICS, resume_step=latest or 0, trackers=self._trackers
        )
        self._adaptive = AdaptiveControl(position, self._log, self._global_step)
        self._clock = PhaseClock(goodput)
        self._scoring = Scoring(run, self._log, self._clock)
        self._validated: tuple[int, Scored] | None = None

    def train(self) -> None:
        """Trains every remaining phase; after the last one, writes the model, then plots and the report.

        The run is finished before the first plot is drawn.
        """
        arrays, previous = self._run.arrays, None
        try:
            if self._latest is not None:
                where = (self._run, self._checkpoints, self._latest, self._position)
                arrays = restored_arrays(*where)
                previous = restored_end(*where, arrays)
            with self._goodput.on("other"):
                while self._position.phase < len(self._phases):
                    trainer = self._train_phase(arrays, previous)
                    arrays, previous = trainer.final_arrays(), trainer.end()
            if processes.is_first():
                self._decorate()
        finally:
            self._trace.end()
            self._background.wait()
            self._trackers.close(finished=self._position.phase == len(self._phases))

    def _train_phase(self, arrays: Arrays, previous: PhaseEnd | None) -> PhaseTrainer:
        """Trains the current phase to its end, in one part for each frozen depth."""
        position, resume_from = self._position, self._position.data
        if resume_from is None:
            position.clock_start = dict(self._goodput.seconds)
        initial = self._initial_arrays(arrays)
        self._background.wait()
        trainer = self._make_trainer(arrays, previous, initial)
        if position.phase + 1 < len(self._phases):
            self._background.start(self._phases[position.phase + 1])
        if resume_from is not None:
            assert self._latest is not None
            trainer.state = restored_state(self._checkpoints, self._latest, "state", trainer.state)
            self._best.load(self._checkpoints, self._latest, arrays)
        elif position.phase and self._best.kept:
            self._best.offer(trainer, 0, self._scoring.measure(trainer))
        epoch = EpochTotals(**position.epoch)
        with stop_requested() as request:
            while True:
                batches = iter(trainer.data.train)
                if resume_from is not None:
                    batches.set_state(resume_from)
                save = functools.partial(self._saver.save_in_phase, trainer, batches, epoch, arrays, initial)
                with frozen_unchanged(trainer.frozen) as record:
                    frozen_depth = self._train_part(trainer, batches, epoch, save, request)
                step = int(trainer.state.step)
                position.spans.append(span(trainer, position.span_start, step, record))
                if frozen_depth is None:
                    break
                position.frozen_depth, position.span_start = frozen_depth, step
                resume_from, arrays = batches.get_state(), trainer.all_arrays()
                trainer = self._make_trainer(arrays, trainer.end(), initial)
            trainer = self._end_phase(trainer, record.after, initial)
            stop, terminate = processes.sum_over_processes(np.array([*stop_flags(request).values()]))
            if stop:
                raise stop_exception(terminate > 0)
        return trainer

    def _make_trainer(self, arrays: Arrays, previous: PhaseEnd | None, initial: Arrays) -> PhaseTrainer:
        """Returns the trainer of the current phase at its current frozen depth; computes its features."""
        position = self._position
        parts = self._run.parts(position.phase, position.frozen_depth)
        trainer = PhaseTrainer(self._run, parts, arrays, self._progress, previous, initial)
        self._goodput.move(trainer.data.extract_seconds, "other", "extract")
        self._goodput.move(trainer.data.compile_seconds, "other", "compile")
        position.extracted += trainer.data.extracted
        return trainer

    def _initial_arrays(self, arrays: Arrays) -> Arrays:
        """Returns the arrays that the current phase changes as they were at its start, if it interpolates."""
        parts = self._phases[self._position.phase]
        if parts.phase.interpolate == 1:
            return {}
        arrays = {**self._run.at(self._position.phase).arrays, **arrays}  # With those of new adapters.
        initial = {path: arrays[path] for path in sorted(parts.changes)}
        if self._position.data is None:
            return initial
        assert self._latest is not None
        return self._checkpoints.arrays(self._latest, "began", initial)

    def _train_part(
        self,
        trainer: PhaseTrainer,
        batches: Any,
        epoch: EpochTotals,
        save: Callable[[int], None],
        request: StopRequest,
    ) -> int | None:
        """Trains until the frozen depth changes, and returns the new one; None at the end of the phase."""
        parts, config = trainer.parts, self._run.config
        first, images = int(trainer.state.step), self._run.batch_size
        self._progress.start(f"training {parts.phase.name}", parts.steps * images, done=first * images)
        saved = time.monotonic()
        agreement = FlagAgreement(
            lambda: {**stop_flags(request), "save": time.monotonic() - saved >= config.checkpoint_seconds}
        )

        def needs_state(step: int) -> bool:
            return self._adaptive.needs_state(parts, step, config.measure_every)

        steps = trainer.train(
            batches,
            first,
            multipliers=functools.partial(self._adaptive.multipliers, trainer),
            agreement=agreement,
            needs_state=needs_state,
        )
        stopping, save_due, frozen_depth = None, False, None
        for step, metrics in enumerate(self._clock.timed(trainer, steps), first + 1):
            self._goodput.save(self._run.workdir, now=False)
            self._trace.step()
            epoch.add(metrics, trainer.block_rates, trainer.images)
            self._progress.advance(images, loss=metrics["loss"])
            flags = agreement.agreed
            if flags["stop"] and stopping is None:
                stopping = stop_exception(flags["terminate"])
            save_due = save_due or flags["save"] or stopping is not None
            if step % parts.steps_per_epoch == 0 and self._end_epoch(
                trainer, step // parts.steps_per_epoch, epoch
            ):
                break
            if needs_state(step):
                with self._clock.on("other", trainer):
                    self._adaptive.log(trainer, step, config.measure_every)
                    frozen_depth = self._adaptive.next_frozen_depth(trainer, step)
            if frozen_depth is not None:
                break
            if save_due and not trainer.unread and step < parts.steps:
                save(self._global_step(step))
                saved, save_due = time.monotonic(), False
                if stopping is not None:
                    raise stopping
        self._progress.finish()
        return frozen_depth

    def _end_epoch(self, trainer: PhaseTrainer, number: int, epoch: EpochTotals) -> bool:
        """Logs the means of an epoch, and validates if it is time; returns True if the phase ends early."""
        parts = trainer.parts
        every = validation_interval(self._run.config, parts.phase, len(self._run.evaluation))
        values = {"phase": parts.phase.name, "epoch": number, "frozen_depth": parts.frozen_depth}
        step = self._global_step(number * parts.steps_per_epoch)
        self._log.write(step, "train", **values, **epoch.end_epoch())
        if not every or number % every or number == parts.phase.epochs:  # The end of the phase validates.
            return False
        self._validated = number, self._scoring.score(trainer, number, step)
        self._best.offer(trainer, number, self._validated[1])
        return self._best.is_over(number)

    def _end_phase(self, trainer: PhaseTrainer, frozen: dict[str, str], initial: Arrays) -> PhaseTrainer:
        """Validates and records a phase, and returns it as it is kept; after the last, writes the model.

        Args:
            trainer: The phase at its end.
            frozen: Hashes of the arrays that were frozen at the end.
            initial: As for `_make_trainer`.
        """
        run, position, last = self._run, self._position, trainer
        epochs = int(last.state.step) // last.parts.steps_per_epoch
        step = self._global_step(int(last.state.step))
        if self._validated is None or self._validated[0] != epochs:
            self._validated = epochs, self._scoring.score(last, epochs, step)
            self._best.offer(last, epochs, self._validated[1])
        ended, self._validated = self._validated[1], None
        validation = ended
        kept = dict(position.best) if self._best.is_earlier(epochs, ended) else None
        if kept is not None:
            trainer = self._restored(last, initial)
            validation = self._scoring.score(trainer, kept["epoch"], step, kept=True)
            frozen = array_hashes(trainer.frozen) if trainer is not last else frozen
        is_last, test = position.phase + 1 == len(self._phases), None
        if is_last and run.config.score_training:
            self._scoring.score(trainer, epochs, step, "training")
        if is_last and run.test is not None and run.config.score_test:
            tuned = run.task.tuned(validation.predictions, run.evaluation.labels)
            test = self._scoring.score(trainer, epochs, step, "test", task=tuned)
        result = phase_result(last, position, self._goodput, validation, ended, test)
        self._log.write(step, "proof", phase=result.name, frozen=frozen)
        if processes.is_first():
            write_freeze_record(run.workdir, last, position.spans, frozen, kept)
        if text := result.choice:
            self._progress.log(text)
        self._best.forget()
        position.next_phase(dataclasses.asdict(result))
        if is_last:
            model = {path: processes.to_host(array) for path, array in trainer.evaluated_arrays().items()}
            if processes.is_first():
                write_artifacts(run, model, validation.predictions, test.predictions if test else None)
            if run.config.prediction_columns == "all":
                parts: dict[Part, Scored | None] = {"validation": validation, "test": test}
                for part, scored in parts.items():
                    if scored is not None and isinstance(scored.predictions, TopPredictions):
                        stream_predictions(trainer, part)
        write_phases(run.workdir, position.results, finished=is_last)
        self._saver.save_phase_end(trainer, self._global_step(0))
        return trainer

    def _restored(self, trainer: PhaseTrainer, initial: Arrays) -> PhaseTrainer:
        """Returns the phase with the arrays of its best epoch, at the frozen depth of that epoch."""
        if self._best.needs_new_trainer():
            self._position.frozen_depth = self._position.best["frozen_depth"]
            trainer = self._make_trainer({**trainer.all_arrays(), **self._best.frozen}, None, initial)
        self._best.restore(trainer)
        return trainer

    def _decorate(self) -> None:
        """Draws the finished run; errors are warnings."""
        workdir = self._run.workdir
        with self._goodput.on("other"):
            draw_run(workdir, lambda: self._run.evaluation)
            scores = self._position.results[-1]["metrics"]
            self._trackers.finish(self._global_step(0), scores, drawn_plots(workdir))
            self._goodput.save(workdir)  # The report reads it.
            write_report(workdir)
        self._goodput.save(workdir)

    def _global_step(self, step: int) -> int:
        """Returns the number of steps since the start of the run at a step of the current phase."""
        return sum(parts.steps for parts in self._phases[: self._position.phase]) + step
