"""Decisions from measurements while a phase trains: learning rates of tensors, and the next frozen depth."""

import dataclasses
from collections.abc import Callable, Mapping

from transfer_jax.freezing.controllers import Measured, needs_plasticity, next_frozen_depth
from transfer_jax.report.metrics_log import MetricsLog
from transfer_jax.runs.run_progress import RunProgress
from transfer_jax.training.gradient_statistics import STATISTIC_BATCHES, by_block, multipliers
from transfer_jax.training.phase_measurements import measure_gradients, measure_plasticity, measure_similarity
from transfer_jax.training.phase_split import PhaseSplit
from transfer_jax.training.phase_trainer import PhaseTrainer


class AdaptiveControl:
    """The learning-rate statistic, the controller and the logged measurements of a phase.

    Args:
        position: The run's progress; its `multipliers` and `tests` are written.
        log: Receives the measurements.
        global_step: Maps a step of the phase to one of the run.
    """

    def __init__(self, position: RunProgress, log: MetricsLog, global_step: Callable[[int], int]) -> None:
        self._position = position
        self._log = log
        self._global_step = global_step

    def multipliers(self, trainer: PhaseTrainer, step: int) -> Mapping[str, float] | None:
        """Returns the factors of the tensors' learning rates, measured at the start of each epoch."""
        parts = trainer.parts
        if parts.phase.statistic != "none" and step % parts.steps_per_epoch == 0:
            found = measure_gradients(trainer, parts.rates(step), STATISTIC_BATCHES)
            self._position.multipliers = multipliers(parts.phase.statistic, found)
        return self._position.multipliers

    def needs_state(self, parts: PhaseSplit, step: int, every: int) -> bool:
        """Returns True if the state is measured or evaluated after `step` steps of the phase.

        Args:
            parts: The phase.
            step: The number of steps.
            every: The interval of `log`.
        """
        tests = bool(parts.phase.controller) and step % _test_interval(parts) == 0
        return tests or step % parts.steps_per_epoch == 0 or (every > 0 and step % every == 0)

    def next_frozen_depth(self, trainer: PhaseTrainer, step: int) -> int | None:
        """Returns the frozen depth that the controller chooses after `step` steps; None for no change."""
        parts = trainer.parts
        phase = parts.phase
        if not phase.controller or step % _test_interval(parts) or step >= parts.steps:
            return None
        found = by_block(measure_gradients(trainer, trainer.rates, 1))
        blocks = set(parts.blocks)
        test = Measured(
            epoch=step / parts.steps_per_epoch,
            frozen_depth=parts.frozen_depth,
            blocks=parts.blocks,
            learning_rate=max(trainer.block_rates.values()),
            grad_norm={block: norm for block, norm in found["grad_norm"].items() if block in blocks},
            plasticity=measure_plasticity(trainer) if needs_plasticity(phase.controller) else {},
        )
        measured = dataclasses.asdict(test)
        self._position.tests.append(measured)
        depth = next_frozen_depth(phase.controller, self._position.history)
        values = {**measured, "next_frozen_depth": depth}
        self._log.write(self._global_step(step), "test", phase=phase.name, **values)
        return None if depth == parts.frozen_depth else depth

    def log(self, trainer: PhaseTrainer, step: int, every: int) -> None:
        """Logs the measurements of each block every `every` steps; 0 never does."""
        if every and step % every == 0:
            found = by_block(measure_gradients(trainer, trainer.rates, 1))
            found["cka"] = measure_similarity(trainer)
            self._log.write(self._global_step(step), "depth", phase=trainer.parts.phase.name, **found)


def _test_interval(parts: PhaseSplit) -> int:
    """Returns the number of steps between two tests of a controller."""
    return max(parts.steps_per_epoch // parts.phase.tests_per_epoch, 1)
