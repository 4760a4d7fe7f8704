"""Checkpoints of a run: saving them, and restoring the arrays of a model anywhere in its schedule."""

import dataclasses
import time
from pathlib import Path
from typing import Any

from transfer_jax.distributed import processes
from transfer_jax.models.flat_arrays import Arrays
from transfer_jax.runs.artifacts import finished_results
from transfer_jax.runs.best_epoch import BestEpoch
from transfer_jax.runs.epoch_totals import EpochTotals
from transfer_jax.runs.goodput import Goodput
from transfer_jax.runs.result import PhaseResult
from transfer_jax.runs.run_progress import RunProgress
from transfer_jax.runs.run_start import check_start, read_start
from transfer_jax.runs.workdir import NOT_MIRRORED, check_workdir
from transfer_jax.storage import workdir_files
from transfer_jax.storage.checkpoints import Checkpoints, SavedCheckpoints
from transfer_jax.storage.remote import push
from transfer_jax.training.loop_checkpoints import restored_state
from transfer_jax.training.phase_trainer import PhaseEnd, PhaseTrainer, fresh_state
from transfer_jax.training.run import Run
from transfer_jax.training.state import named_leaves


def carried_paths(run: Run, position: RunProgress) -> list[str]:
    """Returns the paths that the run has changed and that are not in the state of the current phase."""
    changed = {path for index in range(position.phase) for path in run.parts(index).changes}
    if position.data is None:
        return sorted(changed)
    current = run.parts(position.phase).state_paths
    return sorted((changed | current) - run.parts(position.phase, position.frozen_depth).state_paths)


def restored_arrays(run: Run, checkpoints: Checkpoints, step: int, position: RunProgress) -> Arrays:
    """Returns all arrays of the model; those in the state of the current phase are not restored yet."""
    initial = run.at(min(position.phase, len(run.config.schedule.phases) - 1)).arrays
    template = {path: initial[path] for path in carried_paths(run, position)}
    return {**initial, **checkpoints.arrays(step, "carried", template)}


def restored_end(
    run: Run, checkpoints: Checkpoints, step: int, position: RunProgress, arrays: Arrays
) -> PhaseEnd | None:
    """Returns the end of the phase before if the run is at the start of a phase, else None."""
    if position.phase == 0 or position.data is not None:
        return None
    parts = run.parts(position.phase - 1, position.ended_frozen_depth)
    return PhaseEnd(parts, restored_state(checkpoints, step, "ended", fresh_state(run, parts, arrays)[0]))


def finished_phases(workdir: Path) -> tuple[PhaseResult, ...]:
    """Returns the results of the finished phases of a workdir, which is only read."""
    return tuple(PhaseResult(**result) for result in read_progress(workdir)[1].results)


def read_progress(workdir: Path) -> tuple[int | None, RunProgress]:
    """Returns what `latest_progress` returns of a workdir, which need not exist and is only read.

    A run whose model and results are complete is finished even if its checkpoints were deleted.
    """
    latest, position = latest_progress(Checkpoints(workdir / workdir_files.CHECKPOINTS))
    if latest is None and (results := finished_results(workdir)):
        start = read_start(workdir)
        position = RunProgress(phase=len(results), results=results, start=start.to_json() if start else {})
    return latest, position


def latest_progress(checkpoints: Checkpoints) -> tuple[int | None, RunProgress]:
    """Returns the step of the newest checkpoint, None if there is none, and the progress in it."""
    found = checkpoints.read_newest(lambda step: (step, RunProgress.from_json(checkpoints.progress(step))))
    return found or (None, RunProgress())


def arrays_at(run: Run, workdir: Path | None, index: int) -> Arrays:
    """Returns all arrays of the model of a run that is at the start of a phase, or inside it.

    Args:
        run: The run.
        workdir: Its folder, which is only read; None if it has not started.
        index: Position of the phase.

    Raises:
        ValueError: If the run is at another phase, the workdir is of another config, or the run started with
            other weights or images.
    """
    if index == 0:
        return run.at(0).arrays
    phase = run.config.schedule.phases[index].name
    if workdir is None or not check_workdir(run.config, workdir):
        raise ValueError(
            f"phase {phase!r} starts from the result of the phases before it; give the workdir of a run "
            "that has reached it"
        )
    checkpoints = Checkpoints(workdir / workdir_files.CHECKPOINTS)

    def read(step: int) -> Arrays:
        position = RunProgress.from_json(checkpoints.progress(step))
        if position.phase != index:
            at = [*run.config.schedule.phases[position.phase : position.phase + 1]]
            where = repr(at[0].name) if at else "its end"
            raise ValueError(f"the run in {workdir} is at {where}, not at phase {phase!r}")
        check_start(dataclasses.replace(run, workdir=workdir), position, resumed=True)
        arrays = restored_arrays(run, checkpoints, step, position)
        if position.data is None:
            return arrays
        state = fresh_state(run, run.parts(index, position.frozen_depth), arrays)[0]
        state = restored_state(checkpoints, step, "state", state)
        return {**arrays, **state.trainable, **state.model_state}

    arrays = checkpoints.read_newest(read)
    if arrays is None:
        raise ValueError(f"the run in {workdir} has no checkpoint yet; phase {phase!r} starts from one")
    return arrays


class Saver:
    """Writes the checkpoints of a run, and mirrors its workdir after each.

    Args:
        run: The run.
        checkpoints: The checkpoints in its workdir.
        position: The run's progress.
        goodput: The run's clock.
        best: The best epoch of the current phase, whose arrays are saved in the middle of it.
    """

    def __init__(
        self,
        run: Run,
        checkpoints: SavedCheckpoints,
        position: RunProgress,
        goodput: Goodput,
        best: BestEpoch,
    ) -> None:
        self._run = run
        self._best = best
        self._checkpoints = checkpoints
        self._position = position
        self._goodput = goodput

    def save_in_phase(
        self,
        trainer: PhaseTrainer,
        batches: Any,
        epoch: EpochTotals,
        arrays: Arrays,
        initial: Arrays,
        step: int,
    ) -> None:
        """Saves in the middle of a phase.

        Args:
            trainer: The phase.
            batches: The iterator of its training batches, whose position is saved.
            epoch: Sums over the current epoch.
            arrays: All arrays of the model at the start of this part of the phase.
            initial: The arrays that the phase changes, as they were at its start, if it interpolates.
            step: Steps since the start of the run.
        """
        self._position.data, self._position.epoch = batches.get_state(), dataclasses.asdict(epoch)
        trees = {"state": named_leaves(trainer.state), "carried": self._carried(arrays), "began": initial}
        self._save(step, {**trees, **self._best.trees()})

    def save_phase_end(self, trainer: PhaseTrainer, step: int) -> None:
        """Saves at the end of a phase, when the run's progress is at the start of the next one."""
        carried = self._carried(trainer.final_arrays())
        self._save(step, {"carried": carried, "ended": named_leaves(trainer.state)})

    def _carried(self, arrays: Arrays) -> Arrays:
        return {path: arrays[path] for path in carried_paths(self._run, self._position)}

    def _save(self, step: int, trees: dict[str, Arrays]) -> None:
        goodput = self._goodput
        self._position.seconds, self._position.saved = goodput.seconds, time.time()
        with goodput.on("checkpoint"):
            self._checkpoints.save(step, trees, dataclasses.asdict(self._position))
        goodput.save(self._run.workdir)
        if processes.is_first():
            push(self._run.workdir, skip=NOT_MIRRORED)
