"""From a checkpoint back to the arrays of a model, wherever in its schedule a run is."""

import dataclasses
import time
from typing import Any
from transfer_jax.storage import workdir_files
from transfer_jax.distributed import processes
from transfer_jax.storage.remote import push
from transfer_jax.runs.goodput import Goodput
from transfer_jax.training.phase_trainer import PhaseTrainer
from transfer_jax.training.state import named_leaves
from transfer_jax.runs.phase_totals import PhaseTotals
from transfer_jax.runs.workdir import LAZY
import shutil
from pathlib import Path

from transfer_jax.storage.checkpoints import Checkpoints
from transfer_jax.models.flat_arrays import Arrays
from transfer_jax.training.phase_trainer import Ended, fresh_state
from transfer_jax.runs.run_progress import RunProgress
from transfer_jax.runs.result import PhaseResult
from transfer_jax.training.run import Run
from transfer_jax.training.state import TrainState, named_leaves, restore_leaves
from transfer_jax.runs.workdir import check_workdir


def carried_paths(run: Run, position: RunProgress) -> list[str]:
    """Paths that were changed so far, and that are not in the state of the phase under way."""
    changed = {path for index in range(position.phase) for path in run.parts(index).changes}
    if position.data is None:
        return sorted(changed)
    under_way = run.parts(position.phase).state_paths
    return sorted((changed | under_way) - run.parts(position.phase, position.frozen_depth).state_paths)


def restored_arrays(run: Run, checkpoints: Checkpoints, step: int, position: RunProgress) -> Arrays:
    """All arrays of the model, but for those in the state of the phase under way."""
    template = {path: run.arrays[path] for path in carried_paths(run, position)}
    return {**run.arrays, **checkpoints.arrays(step, "carried", template)}


def restored_end(
    run: Run, checkpoints: Checkpoints, step: int, position: RunProgress, arrays: Arrays
) -> Ended | None:
    """How the phase before ended, where the run is at the start of one."""
    if position.phase == 0 or position.data is not None:
        return None
    parts = run.parts(position.phase - 1, position.ended_frozen_depth)
    return Ended(parts, restored_state(checkpoints, step, "ended", fresh_state(run, parts, arrays)[0]))


def restored_state(checkpoints: Checkpoints, step: int, name: str, template: TrainState) -> TrainState:
    """A state that was saved under a name, in the structure of `template`.

    Raises:
        ValueError: If what was saved trained other parameters.
    """
    leaves = named_leaves(template)
    saved = checkpoints.names(step, name)
    if saved != set(leaves):
        odd = ", ".join(sorted(saved ^ set(leaves))[:3])
        raise ValueError(
            f"the checkpoint of step {step} trained other parameters than this config: {odd}; "
            "another schedule needs another workdir"
        )
    return restore_leaves(template, checkpoints.arrays(step, name, leaves))


def finished_phases(workdir: Path) -> tuple[PhaseResult, ...]:
    """What the phases did that are finished in a workdir, which is only read; none if it is not begun."""
    if not (workdir / workdir_files.CHECKPOINTS).is_dir():
        return ()
    checkpoints = Checkpoints(workdir / workdir_files.CHECKPOINTS)
    latest = checkpoints.latest()
    position = RunProgress() if latest is None else RunProgress(**checkpoints.progress(latest))
    return tuple(PhaseResult(**result) for result in position.results)


def arrays_at(run: Run, workdir: Path | None, index: int, scratch: Path) -> Arrays:
    """All arrays of the model where a run is at the start of a phase, or in it; its workdir is only read.

    Args:
        run: The run's config, made ready.
        workdir: Its folder; None if it is not begun.
        index: Position of the phase.
        scratch: A folder that the newest checkpoint is copied to.

    Raises:
        ValueError: If the run is elsewhere, or is one of another config.
    """
    if index == 0:
        return run.arrays
    phase = run.config.schedule.phases[index].name
    if workdir is None or not check_workdir(run.config, workdir):
        raise ValueError(
            f"phase {phase!r} begins with what the phases before it leave; give the workdir of a run "
            "that has come to it"
        )
    shutil.copytree(workdir / workdir_files.CHECKPOINTS, scratch / workdir_files.CHECKPOINTS)
    checkpoints = Checkpoints(scratch / workdir_files.CHECKPOINTS)
    latest = checkpoints.latest()
    position = RunProgress() if latest is None else RunProgress(**checkpoints.progress(latest))
    if latest is None or position.phase != index:
        at = [*run.config.schedule.phases[position.phase : position.phase + 1]]
        where = repr(at[0].name) if at else "its end"
        raise ValueError(f"the run in {workdir} is at {where}, not at phase {phase!r}")
    arrays = restored_arrays(run, checkpoints, latest, position)
    if position.data is None:
        return arrays
    state = fresh_state(run, run.parts(index, position.frozen_depth), arrays)[0]
    state = restored_state(checkpoints, latest, "state", state)
    return {**arrays, **run.parts(index).adapters.merged({**arrays, **state.trainable, **state.stats})}


class Saver:
    """Writes checkpoints of a run, and mirrors its workdir after each.

    Args:
        run: What is trained.
        checkpoints: Those of its workdir.
        position: How far the run is.
        goodput: What counts the run's time.
    """

    def __init__(self, run: Run, checkpoints: Checkpoints, position: RunProgress, goodput: Goodput) -> None:
        self._run = run
        self._checkpoints = checkpoints
        self._position = position
        self._goodput = goodput

    def under_way(
        self,
        trainer: PhaseTrainer,
        iterator: Any,
        tally: PhaseTotals,
        arrays: Arrays,
        began: Arrays,
        step: int,
    ) -> None:
        """Saves in the middle of a phase.

        Args:
            trainer: That of the phase.
            iterator: That of its training batches, which tells its position.
            tally: What was counted in it.
            arrays: All arrays of the model when this part of the phase began.
            began: What the phase changes, as it was at its start, if it interpolates.
            step: Steps since the beginning of the run.
        """
        self._position.data, self._position.tally = iterator.get_state(), dataclasses.asdict(tally)
        trees = {"state": named_leaves(trainer.state), "carried": self._carried(arrays), "began": began}
        self._save(step, trees)

    def ended(self, trainer: PhaseTrainer, step: int) -> None:
        """Saves at the end of a phase, when the position is at the start of the next one."""
        carried = self._carried(trainer.final_arrays())
        self._save(step, {"carried": carried, "ended": named_leaves(trainer.state)})

    def _carried(self, arrays: Arrays) -> Arrays:
        return {path: arrays[path] for path in carried_paths(self._run, self._position)}

    def _save(self, step: int, trees: dict[str, Arrays]) -> None:
        goodput = self._goodput
        self._position.seconds, self._position.saved = goodput.seconds, time.time()
        with goodput.on("checkpoint"):
            self._checkpoints.save(step, trees, dataclasses.asdict(self._position))
        goodput.saved = self._position.saved
        goodput.save(self._run.workdir)
        if processes.is_first():
            push(self._run.workdir, skip=LAZY)
