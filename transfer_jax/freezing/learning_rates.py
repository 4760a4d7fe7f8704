"""Learning rates: base x depth scale x time shape x statistic, for each block or tensor at each step."""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence

import numpy as np

from transfer_jax.freezing.freezeout import freezeout_factors
from transfer_jax.freezing.labels import FROZEN, trainable_blocks
from transfer_jax.freezing.phase import Phase
from transfer_jax.freezing.selectors import SelectorError, first_block, is_norm
from transfer_jax.models.paths import block_of

Rates = dict[str, np.float32]
"""From block to learning rate; the entry of a single parameter, by its path, goes before its block's."""

_SLANTED_RATIO = 32


@dataclasses.dataclass(frozen=True)
class PhaseRates:
    """The learning rates of what trains in a phase, step by step.

    Attributes:
        phase: The phase.
        labels: From path to `frozen` or the block, in the order of the blocks.
        steps: Steps on the phase's clock in all.
    """

    phase: Phase
    labels: Mapping[str, str]
    steps: int

    @functools.cached_property
    def depth(self) -> dict[str, float]:
        """The depth scale of each block, frozen ones too; see `depth_factors`."""
        return depth_factors(self.phase, self.labels)

    @functools.cached_property
    def trainable(self) -> tuple[str, ...]:
        """The blocks that train."""
        return trainable_blocks(self.labels)

    def at(self, step: int, multipliers: Mapping[str, float] | None = None) -> Rates:
        """The rates at a step on the phase's clock.

        Args:
            step: The step.
            multipliers: From path to the statistic that scales its rate; None for no statistic.
        """
        phase, blocks = self.phase, tuple(self.depth)
        if phase.shape == "freezeout":
            time = freezeout_factors(phase.first_freeze, blocks, step / max(self.steps, 1))
        else:
            time = dict.fromkeys(blocks, rate_factor(phase, step, self.steps))
        rates = {
            block: np.float32(phase.learning_rate * self.depth[block] * time[block])
            for block in self.trainable
        }
        if multipliers is None:
            return rates
        tensors = {
            path: label for path, label in self.labels.items() if label != FROZEN and path in multipliers
        }
        return {
            **rates,
            **{path: np.float32(rates[block] * multipliers[path]) for path, block in tensors.items()},
        }


def rate_factor(phase: Phase, step: int, steps: int) -> float:
    """The time shape of the learning rate: a factor in [0, 1] at a step of `steps`.

    Source of the slanted triangle: Howard and Ruder 2018 (ULMFiT), arXiv:1801.06146.
    """
    warmup = phase.warmup * steps
    if phase.shape == "slanted":
        cut = max(math.floor(warmup), 1)
        climbed = step / cut if step < cut else 1 - (step - cut) / (cut * (1 / phase.warmup - 1))
        return (1 + max(climbed, 0.0) * (_SLANTED_RATIO - 1)) / _SLANTED_RATIO
    if step < warmup:
        return (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(steps - warmup, 1)
    match phase.shape:
        case "linear":
            return 1 - progress
        case "cosine":
            return 0.5 * (1 + math.cos(math.pi * progress))
    return 1.0


def depth_factors(phase: Phase, paths: Sequence[str] | Mapping[str, str]) -> dict[str, float]:
    """The depth scale of each block's learning rate.

    The head has 1, the group below it `layer_decay ** decay_start`, and each group that is lower one factor
    more. A block of normalizations alone, such as that at the end of a vision transformer, goes with the one
    above it.

    Source: Bao et al. 2021 (BEiT), arXiv:2106.08254, whose powers start at 1; Clark et al. 2020 (ELECTRA),
    arXiv:2003.10555, at 2; Howard and Ruder 2018 (ULMFiT), arXiv:1801.06146, a factor of 1/2.6 a group.

    Args:
        phase: The phase.
        paths: All parameters in the order of their blocks, the head last.

    Raises:
        SelectorError: If a group begins with a block that is not there.
    """
    blocks = tuple(dict.fromkeys(map(block_of, paths)))
    starts = {first_block(blocks, name, f"groups={phase.groups}") for name in phase.groups}
    if phase.groups and 0 not in starts:
        raise SelectorError(f"groups={phase.groups} leave out {blocks[0]}: the lowest block begins a group")
    matrices = {block_of(path) for path in paths if not is_norm(path)}
    powers, begins = {"head": 0}, True
    power = phase.decay_start - 1
    for index in range(len(blocks) - 2, -1, -1):
        block, above = blocks[index], blocks[index + 1]
        if block in matrices and begins:
            power, begins = power + 1, not phase.groups
        powers[block] = power if block in matrices else powers[above]
        begins = begins or index in starts
    return {block: phase.layer_decay ** powers[block] for block in blocks}
