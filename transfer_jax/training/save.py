"""The checkpoints of a run, which `restore` goes on from."""

import dataclasses
import time
from typing import Any

from transfer_jax import processes
from transfer_jax.checkpoint import Checkpoints
from transfer_jax.mirror import push
from transfer_jax.models.functional import Arrays
from transfer_jax.training.goodput import Goodput
from transfer_jax.training.phase import PhaseTrainer
from transfer_jax.training.position import Position
from transfer_jax.training.restore import carried_paths
from transfer_jax.training.run import Run
from transfer_jax.training.state import named_leaves
from transfer_jax.training.tally import Tally
from transfer_jax.training.workdir import LAZY


class Saver:
    """Writes checkpoints of a run, and mirrors its workdir after each.

    Args:
        run: What is trained.
        checkpoints: Those of its workdir.
        position: How far the run is.
        goodput: What counts the run's time.
    """

    def __init__(self, run: Run, checkpoints: Checkpoints, position: Position, goodput: Goodput) -> None:
        self._run = run
        self._checkpoints = checkpoints
        self._position = position
        self._goodput = goodput

    def under_way(
        self,
        trainer: PhaseTrainer,
        iterator: Any,
        tally: Tally,
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
