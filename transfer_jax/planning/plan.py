"""What a schedule will do to a network, before anything is trained."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import numpy as np

from transfer_jax.config import TrainConfig
from transfer_jax.data import load_dataset
from transfer_jax.freezing.labels import FROZEN
from transfer_jax.models.flat_arrays import block_of, split
from transfer_jax.report.timeline import Epoch, Timeline
from transfer_jax.training.phase_split import PhaseSplit, split_schedule
from transfer_jax.training.run import abstract_model, batch_size, check, split_images


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


def plan(config: TrainConfig) -> Plan:
    """Plans a config; reads the names and classes of its images, but computes nothing.

    Raises:
        ValueError: As `check` and `load_dataset`.
        FileNotFoundError: If the images or the weights are not on this machine.
    """
    check(config)
    dataset = load_dataset(config.images, config.data_dir)
    train, _ = split_images(dataset, config)
    model = abstract_model(config, len(dataset.class_names))
    _, params, _ = split(model)
    steps_per_epoch = len(train) // batch_size(config, len(train))
    return Plan(
        split_schedule(config.schedule, model, steps_per_epoch),
        {path: int(np.prod(array.shape)) for path, array in params.items()},
    )


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
