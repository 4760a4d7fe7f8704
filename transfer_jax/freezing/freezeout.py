"""The schedule of FreezeOut, in which lower blocks freeze earlier. This module imports no JAX."""

import math
from collections.abc import Sequence


def freezeout_ends(first: float, blocks: Sequence[str]) -> dict[str, float]:
    """Returns the time at which each block freezes, as a fraction of the schedule.

    Cubic schedule: block `i` freezes at `(first + (1 - first) * i / last) ** 3`, the head at 1.

    Source: Brock et al. 2017 (FreezeOut), arXiv:1706.04983.

    Args:
        first: Cube root of the time at which the lowest block freezes, in (0, 1].
        blocks: Names of the blocks, input side first and the head last.
    """
    last = max(len(blocks) - 1, 1)
    return {block: (first + (1 - first) * index / last) ** 3 for index, block in enumerate(blocks)}


def freezeout_factors(first: float, blocks: Sequence[str], progress: float) -> dict[str, float]:
    """Returns the factor of each block's learning rate at a fraction of the schedule.

    The factor is `(1 + cos(pi * progress / end)) / (2 * end)` until the block freezes at `end`, then 0. The
    source is that of `freezeout_ends`, with learning rates scaled by `1 / end`.

    Args:
        first: As in `freezeout_ends`.
        blocks: As in `freezeout_ends`.
        progress: The fraction, in [0, 1].
    """
    ends = freezeout_ends(first, blocks)
    return {
        block: 0.5 / end * (1 + math.cos(math.pi * progress / end)) if progress < end else 0.0
        for block, end in ends.items()
    }
