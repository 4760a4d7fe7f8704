"""Recipes in which time or measurements decide what trains."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

from transfer_jax.freezing.freezeout import freezeout_ends
from transfer_jax.freezing.phase import Phase
from transfer_jax.freezing.recipes.full_network import lp_ft
from transfer_jax.freezing.schedule import Schedule


def auto_rgn(**others: Any) -> Schedule:
    """Each tensor's rate is scaled by its gradient's norm over its own, as a share of the largest such ratio.

    Measured on five batches at the start of every epoch; normalizations do not train.

    Source: Lee et al. 2022, arXiv:2210.11466.

    Args:
        **others: As for `lp_ft`.
    """
    return lp_ft(**{"train": "~role('norm')", "statistic": "rgn", **others})


def auto_snr(**others: Any) -> Schedule:
    """A tensor trains while the signal-to-noise ratio of its gradient is at least 0.95.

    Measured on five batches at the start of every epoch; normalizations do not train.

    Source: Lee et al. 2022, arXiv:2210.11466.

    Args:
        **others: As for `lp_ft`.
    """
    return lp_ft(**{"train": "~role('norm')", "statistic": "snr", **others})


def freezeout(
    blocks: Sequence[str], *, epochs: int = 10, learning_rate: float = 1e-4, first: float = 0.8, **others: Any
) -> Schedule:
    """Every block's rate falls along a cosine of its own, the lowest one's fastest; at zero it freezes.

    Block i of 0 … L ends at `t_i = (first + (1 - first) i / L) ** 3` of the time; its rate is
    `rate / (2 t_i) (1 + cos(pi t / t_i))`. It leaves the trainable part at the end of that epoch.

    Source: Brock et al. 2017, arXiv:1706.04983, cubic and scaled.

    Args:
        blocks: The backbone's blocks with parameters, in order.
        epochs: Epochs in all.
        learning_rate: The highest rate of the head.
        first: Root of the share of the time after which the lowest block freezes.
        **others: Other fields of all phases.
    """
    ends = freezeout_ends(first, (*blocks, "head"))
    last = {block: math.ceil(round(ends[block] * epochs, 9)) for block in blocks}
    times = sorted({0, epochs, *last.values()})
    phases = []
    for start, stop in itertools.pairwise(times):
        training = [block for block in blocks if last[block] > start]
        phases.append(
            Phase(
                name=f"epochs {start + 1}-{stop}",
                train=f"from_({training[0]!r})" if training else "head",
                epochs=stop - start,
                learning_rate=learning_rate,
                shape="freezeout",
                clock="schedule",
                first_freeze=first,
                **others,
            )
        )
    return Schedule(tuple(phases))


def autofreeze(*, tests_per_epoch: int = 4, **others: Any) -> Schedule:
    """Blocks freeze from below once the norms of their gradients have stopped to change; see `controllers`.

    Source: Liu et al. 2021, arXiv:2102.01386, whose tests are 20 an epoch.

    Args:
        tests_per_epoch: How often the cut may move.
        **others: As for `lp_ft`.
    """
    return lp_ft(controller="autofreeze", tests_per_epoch=tests_per_epoch, **others)


def pipetransformer(**others: Any) -> Schedule:
    """A third of the blocks that still train freezes after every epoch; see `controllers`.

    Source: He et al. 2021, arXiv:2102.03161.

    Args:
        **others: As for `lp_ft`.
    """
    return lp_ft(controller="pipetransformer", **others)


def egeria(*, tests_per_epoch: int = 2, **others: Any) -> Schedule:
    """Blocks freeze from below once their plasticity is flat, and unfreeze when the rate drops.

    Source: Wang et al. 2022, arXiv:2201.06227; see `controllers` for what differs.

    Args:
        tests_per_epoch: How often the cut may move.
        **others: As for `lp_ft`.
    """
    return lp_ft(controller="egeria", tests_per_epoch=tests_per_epoch, **others)
