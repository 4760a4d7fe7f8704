"""What a schedule will do to a network, before anything is trained."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import numpy as np

from transfer_jax.freezing.labels import FROZEN
from transfer_jax.models.flat_arrays import split
from transfer_jax.models.paths import block_of
from transfer_jax.planning.resolved_run import ResolvedRun
from transfer_jax.report.timeline import Epoch, Timeline
from transfer_jax.training.phase_split import PhaseSplit


@dataclasses.dataclass(frozen=True)
class BlockPlan:
    """What one phase does with one block.

    Attributes:
        trainable: Parameters of it that train.
        rate: The highest learning rate that it has in the phase; 0 if it is frozen.
    """

    trainable: int
    rate: float


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a schedule will do.

    Attributes:
        phases: Its phases, split.
        sizes: By path, the number of parameters.
    """

    phases: tuple[PhaseSplit, ...]
    sizes: Mapping[str, int]

    @property
    def blocks(self) -> tuple[str, ...]:
        """All blocks with parameters, input side first, the head last."""
        return (*self.phases[0].blocks, "head")

    def parameters(self, block: str) -> int:
        """Number of parameters of a block."""
        return sum(size for path, size in self.sizes.items() if block_of(path) == block)

    def of_block(self, index: int, block: str) -> BlockPlan:
        """What the phase at a position does with a block."""
        parts = self.phases[index]
        trainable = [
            path for path, label in parts.labels.items() if label != FROZEN and block_of(path) == block
        ]
        if not trainable:
            return BlockPlan(0, 0.0)
        return BlockPlan(sum(self.sizes.get(path, 0) for path in trainable), self._highest[index][block])

    @functools.cached_property
    def _highest(self) -> tuple[dict[str, float], ...]:
        """By phase, the highest rate of each block that trains."""
        return tuple(_highest_rates(parts) for parts in self.phases)

    def timeline(self) -> Timeline:
        """The mean rate of every block in every epoch.

        A statistic scales the rates of tensors further, and a controller freezes more, as they find.
        """
        return planned_timeline(self.phases)


def plan(resolved: ResolvedRun) -> Plan:
    """Returns the plan of a run. Nothing is computed."""
    _, params, _ = split(resolved.network.model)
    return Plan(resolved.phases, {path: int(np.prod(array.shape)) for path, array in params.items()})


def planned_timeline(phases: Sequence[PhaseSplit]) -> Timeline:
    """The timeline of phases, as `Plan.timeline`."""
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
