"""What is measured while a phase trains, and decided from it: the rates of tensors, and the next frozen depth."""

import dataclasses
from collections.abc import Callable, Mapping

from transfer_jax.freezing.controllers import Measured, needs_plasticity, next_frozen_depth
from transfer_jax.report.metrics import MetricsLog
from transfer_jax.training.gradient_statistics import STATISTIC_BATCHES, by_block, multipliers
from transfer_jax.training.phase_split import PhaseSplit
from transfer_jax.training.phase_trainer import PhaseTrainer
from transfer_jax.runs.run_progress import RunProgress

class AdaptiveControl:
    """Asks the statistic, the controller and the log of a phase, and keeps what they say in the position.

    Args:
        position: Where the run is; its `multipliers` and `tests` are written.
        log: Where measurements go.
        global_step: From a step of the phase to one of the run.
    """

    def __init__(self, position: RunProgress, log: MetricsLog, global_step: Callable[[int], int]) -> None:
        self._position = position
        self._log = log
        self._global_step = global_step

    def multipliers(self, trainer: PhaseTrainer, step: int) -> Mapping[str, float] | None:
        """What scales the rates of tensors at a step; measured anew at the start of each epoch."""
        parts = trainer.parts
        if parts.phase.statistic != "none" and step % parts.steps_per_epoch == 0:
            found = trainer.measure(parts.rates(step), STATISTIC_BATCHES)
            self._position.multipliers = multipliers(parts.phase.statistic, found)
        return self._position.multipliers

    def watches(self, parts: PhaseSplit, step: int, every: int) -> bool:
        """Whether anything looks at the state after so many steps: the arguments are those of `log`."""
        tests = bool(parts.phase.controller) and step % _test_steps(parts) == 0
        return tests or step % parts.steps_per_epoch == 0 or (every > 0 and step % every == 0)

    def next_frozen_depth(self, trainer: PhaseTrainer, step: int) -> int | None:
        """The frozen_depth that the controller wants after so many steps of the phase; None if it is where it was."""
        parts = trainer.parts
        phase = parts.phase
        if not phase.controller or step % _test_steps(parts) or step >= parts.steps:
            return None
        found = by_block(trainer.measure(trainer.rates, 1))
        blocks = set(parts.blocks)
        test = Measured(
            epoch=step / parts.steps_per_epoch,
            frozen_depth=parts.frozen_depth,
            blocks=parts.blocks,
            learning_rate=max(trainer.block_rates.values()),
            grad_norm={block: norm for block, norm in found["grad_norm"].items() if block in blocks},
            plasticity=trainer.plasticity() if needs_plasticity(phase.controller) else {},
        )
        self._position.tests.append(dataclasses.asdict(test))
        frozen_depth = next_frozen_depth(phase.controller, self._position.history)
        self._log.write(
            self._global_step(step), "test", phase=phase.name, **dataclasses.asdict(test), next_frozen_depth=frozen_depth
        )
        return None if frozen_depth == parts.frozen_depth else frozen_depth

    def log(self, trainer: PhaseTrainer, step: int, every: int) -> None:
        """Writes the statistics by block, every so many steps; 0 for never."""
        if every and step % every == 0:
            found = by_block(trainer.measure(trainer.rates, 1))
            found["cka"] = trainer.similarity()
            self._log.write(self._global_step(step), "depth", phase=trainer.parts.phase.name, **found)


def _test_steps(parts: PhaseSplit) -> int:
    """Steps between two tests of a controller."""
    return max(parts.steps_per_epoch // parts.phase.tests_per_epoch, 1)
