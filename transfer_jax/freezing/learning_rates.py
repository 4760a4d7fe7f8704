"""Learning rates of blocks and tensors at each step: base x depth factor x time factor x statistic."""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np

from transfer_jax.freezing.freezeout import freezeout_factors
from transfer_jax.freezing.labels import trainable_blocks
from transfer_jax.freezing.phase import Phase
from transfer_jax.freezing.python_object import PythonObject
from transfer_jax.freezing.selectors import SelectorError, first_block, is_norm
from transfer_jax.freezing.time_factor import SHAPES, time_factor
from transfer_jax.freezing.trees import FROZEN
from transfer_jax.models.paths import block_of

Rates = dict[str, np.float32]
"""Learning rates by block. An entry by the path of a parameter takes precedence over that of its block."""

_SLANTED_RATIO = 32
"""Ratio of the highest to the lowest learning rate of the slanted triangle."""


@dataclasses.dataclass(frozen=True)
class PhaseRates:
    """The learning rates of the trainable parameters of a phase at each step.

    Attributes:
        phase: The phase.
        labels: Labels by path, in the order of the blocks.
        steps: Number of steps in the span of the phase's learning-rate schedule (`Phase.clock`).
    """

    phase: Phase
    labels: Mapping[str, str]
    steps: int

    @functools.cached_property
    def depth(self) -> dict[str, float]:
        """The depth factor of each block, frozen blocks included; see `depth_factors`."""
        return depth_factors(self.phase, self.labels)

    @functools.cached_property
    def trainable(self) -> tuple[str, ...]:
        """The trainable blocks."""
        return trainable_blocks(self.labels)

    def at(self, step: int, multipliers: Mapping[str, float] | None = None) -> Rates:
        """Returns the learning rates at a step.

        Args:
            step: The step in the span of the learning-rate schedule, from 0.
            multipliers: Factor of each parameter's learning rate, by path; None for no factors.

        Returns:
            float32 rates by trainable block, and by path for the trainable parameters in `multipliers`.
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
    """Returns the factor of the learning rate at a step: in [0, 1], or what a function of the step returns.

    Args:
        phase: The phase, with its learning-rate schedule (`shape`) and `warmup`.
        step: The step, from 0.
        steps: Number of steps in the span of the schedule.

    Raises:
        ValueError: If a function returns no number of at least 0; the message names the phase.

    Source of the slanted triangle: Howard and Ruder 2018 (ULMFiT), arXiv:1801.06146.
    """
    if phase.shape not in SHAPES:
        try:
            return time_factor(cast("str | PythonObject", phase.shape), step)
        except ValueError as error:
            raise ValueError(f"phase {phase.name!r}: {error}") from None
    warmup = phase.warmup * steps
    if phase.shape == "slanted":
        peak = max(math.floor(warmup), 1)
        height = step / peak if step < peak else 1 - (step - peak) / (peak * (1 / phase.warmup - 1))
        return (1 + max(height, 0.0) * (_SLANTED_RATIO - 1)) / _SLANTED_RATIO
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
    """Returns the factor of each block's learning rate for its depth.

    The head has 1, the group below it `layer_decay ** decay_start`, and each lower group one more factor of
    `layer_decay`. A block that contains only normalizations, such as the last one of a vision transformer,
    has the factor of the block above it.

    Source: Bao et al. 2021 (BEiT), arXiv:2106.08254, whose powers start at 1; Clark et al. 2020 (ELECTRA),
    arXiv:2003.10555, whose powers start at 2; Howard and Ruder 2018 (ULMFiT), arXiv:1801.06146, with a
    factor of 1/2.6 for each group.

    Args:
        phase: The phase.
        paths: Paths of all parameters in the order of their blocks, the head last.

    Raises:
        SelectorError: If a group starts with an unknown block, or no group starts with the lowest block.
    """
    blocks = tuple(dict.fromkeys(map(block_of, paths)))
    starts = {first_block(blocks, name, f"groups={phase.groups}") for name in phase.groups}
    if phase.groups and 0 not in starts:
        raise SelectorError(
            f"groups={phase.groups} leave out {blocks[0]}; add the lowest block as the first group"
        )
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
