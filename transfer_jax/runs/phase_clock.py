"""The wall time of a phase by activity, without the time that it spends compiling and waiting for batches."""

import contextlib
from collections.abc import Iterator

from transfer_jax.runs.goodput import Goodput
from transfer_jax.training.phase_trainer import PhaseTrainer


class PhaseClock:
    """The clock of a run for the activities of its phases.

    Args:
        goodput: The run's clock.
    """

    def __init__(self, goodput: Goodput) -> None:
        self._goodput = goodput

    @contextlib.contextmanager
    def on(self, part: str, trainer: PhaseTrainer) -> Iterator[None]:
        """Counts the time inside the context as an activity, less the time of compiling and waiting."""
        compiled, waited = trainer.compile_seconds, trainer.wait_seconds
        with self._goodput.on(part):
            yield
            self._goodput.move(trainer.compile_seconds - compiled, part, "compile")
            self._goodput.move(trainer.wait_seconds - waited, part, "wait")

    def timed(self, trainer: PhaseTrainer, steps: Iterator[dict[str, float]]) -> Iterator[dict[str, float]]:
        """Yields the metrics of the steps, and counts the time that the steps take."""
        while True:
            with self.on("step", trainer):
                metrics = next(steps, None)
            if metrics is None:
                return
            yield metrics
