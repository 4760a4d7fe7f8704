"""The plan of a run: which parameters each phase trains, and at which rates."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import numpy as np

from transfer_jax.freezing.trees import FROZEN
from transfer_jax.models.flat_arrays import split
from transfer_jax.models.paths import block_of
from transfer_jax.planning.resolved_run import ResolvedRun
from transfer_jax.report.rate_timeline import Epoch, Timeline
from transfer_jax.training.phase_split import PhaseSplit, with_adapters


@dataclasses.dataclass(frozen=True)
class BlockPlan:
    """The plan of one block in one phase.

    Attributes:
        trainable: Number of its trainable parameters.
        rate: Its highest learning rate in the phase; 0 if it is frozen.
    """

    trainable: int
    rate: float


@dataclasses.dataclass(frozen=True)
class Plan:
    """The plan of a schedule.

    Attributes:
        phases: The phases, split.
        sizes: The number of parameters by path.
    """

    phases: tuple[PhaseSplit, ...]
    sizes: Mapping[str, int]

    @property
    def blocks(self) -> tuple[str, ...]:
        """All blocks with parameters, input side first, the head last."""
        return (*self.phases[0].blocks, "head")

    def parameters(self, block: str) -> int:
        """Returns the number of parameters of a block."""
        return sum(size for path, size in self.sizes.items() if block_of(path) == block)

    def of_block(self, index: int, block: str) -> BlockPlan:
        """Returns the plan of a block in the phase at a position of the schedule."""
        parts = self.phases[index]
        trainable = [
            path for path, label in parts.labels.items() if label != FROZEN and block_of(path) == block
        ]
        if not trainable:
            return BlockPlan(0, 0.0)
        return BlockPlan(sum(self.sizes.get(path, 0) for path in trainable), self._highest[index][block])

    @functools.cached_property
    def _highest(self) -> tuple[dict[str, float], ...]:
        """The highest rate of each trainable block, by phase."""
        return tuple(_highest_rates(parts) for parts in self.phases)

    def timeline(self) -> Timeline:
        """Returns the mean rate of every block in every epoch.

        During training a statistic scales the rates of tensors further, and a controller freezes more blocks.
        """
        return planned_timeline(self.phases)


def plan(resolved: ResolvedRun) -> Plan:
    """Returns the plan of a run. Nothing is computed."""
    last = len(resolved.config.schedule.phases) - 1
    _, params, _ = split(with_adapters(resolved.network.model, resolved.config.schedule, last))
    return Plan(resolved.phases, {path: int(np.prod(array.shape)) for path, array in params.items()})


def planned_timeline(phases: Sequence[PhaseSplit]) -> Timeline:
    """Returns the timeline of phases; see `Plan.timeline`."""
    epochs = []
    for parts in phases:
        for epoch in range(parts.phase.epochs):
            first = epoch * parts.steps_per_epoch
            rates = [parts.rates(first + step) for step in range(parts.steps_per_epoch)]
            means = {block: float(np.mean([float(each[block]) for each in rates])) for block in rates[0]}
            epochs.append(Epoch(parts.phase.name, epoch + 1, means))
    return Timeline((*phases[0].blocks, "head"), tuple(epochs))


def _highest_rates(parts: PhaseSplit) -> dict[str, float]:
    rates = [parts.rates(step) for step in range(0, parts.steps, max(parts.steps // 200, 1))]
    return {block: max(float(each[block]) for each in rates) for block in rates[0]}
