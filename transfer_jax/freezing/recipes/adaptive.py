"""Recipes in which time or measurements determine the trainable part or the learning rates."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

from transfer_jax.fields import as_tuple
from transfer_jax.freezing.freezeout import freezeout_ends
from transfer_jax.freezing.phase import Phase
from transfer_jax.freezing.recipes.full_network import lp_ft
from transfer_jax.freezing.schedule import Schedule


def auto_rgn(**fields: Any) -> Schedule:
    """Scales the learning rate of each tensor by its relative gradient norm, divided by the largest one.

    The relative gradient norm is the norm of the gradient over the norm of the tensor, measured on five
    batches at the start of every epoch. A linear probe is trained first. Normalizations do not train.

    Source: Lee et al. 2022 (Auto-RGN), arXiv:2210.11466.

    Args:
        **fields: As for `lp_ft`.
    """
    return lp_ft(**{"train": "~role('norm')", "statistic": "rgn", **fields})


def auto_snr(**fields: Any) -> Schedule:
    """Trains each tensor in the epochs in which the signal-to-noise ratio of its gradient is at least 0.95.

    The ratio is measured on five batches at the start of every epoch. A linear probe is trained first.
    Normalizations do not train.

    Source: Lee et al. 2022 (Auto-SNR), arXiv:2210.11466.

    Args:
        **fields: As for `lp_ft`.
    """
    return lp_ft(**{"train": "~role('norm')", "statistic": "snr", **fields})


def freezeout(
    blocks: Sequence[str], *, epochs: int = 10, learning_rate: float = 1e-4, first: float = 0.8, **fields: Any
) -> Schedule:
    """Freezes the blocks one after the other, the lowest first, each at the end of its own cosine decay.

    Block i of 0 … L freezes at `t_i = (first + (1 - first) i / L) ** 3` of the schedule. Its learning rate at
    time t is `rate / (2 t_i) (1 + cos(pi t / t_i))`. The block is frozen at the end of the epoch in which its
    rate reaches zero.

    Source: Brock et al. 2017 (FreezeOut), arXiv:1706.04983, with cubic times and scaled rates.

    Args:
        blocks: Names of the backbone's blocks with parameters, input side first.
        epochs: Total number of epochs.
        learning_rate: The highest learning rate of the head.
        first: Cube root of the fraction of the schedule after which the lowest block freezes, in (0, 1].
        **fields: Other fields of all phases.
    """
    blocks = as_tuple(blocks)
    ends = freezeout_ends(first, (*blocks, "head"))
    last_epochs = {block: math.ceil(round(ends[block] * epochs, 9)) for block in blocks}
    times = sorted({0, epochs, *last_epochs.values()})
    phases = []
    for start, stop in itertools.pairwise(times):
        trainable = [block for block in blocks if last_epochs[block] > start]
        phases.append(
            Phase(
                name=f"epochs {start + 1}-{stop}",
                train=f"from_({trainable[0]!r})" if trainable else "head",
                epochs=stop - start,
                learning_rate=learning_rate,
                shape="freezeout",
                clock="schedule",
                first_freeze=first,
                **fields,
            )
        )
    return Schedule(tuple(phases))


def autofreeze(*, tests_per_epoch: int = 4, **fields: Any) -> Schedule:
    """Freezes blocks from the input when their gradient norms stop changing; see `controllers.autofreeze`.

    A linear probe is trained first.

    Source: Liu et al. 2021 (AutoFreeze), arXiv:2102.01386, with 20 tests an epoch.

    Args:
        tests_per_epoch: Number of times an epoch that the frozen depth may change.
        **fields: As for `lp_ft`.
    """
    return lp_ft(controller="autofreeze", tests_per_epoch=tests_per_epoch, **fields)


def pipetransformer(**fields: Any) -> Schedule:
    """Freezes up to a third of the trainable blocks after every epoch; see `controllers.pipetransformer`.

    A linear probe is trained first.

    Source: He et al. 2021 (PipeTransformer), arXiv:2102.03161.

    Args:
        **fields: As for `lp_ft`.
    """
    return lp_ft(controller="pipetransformer", **fields)


def egeria(*, tests_per_epoch: int = 2, **fields: Any) -> Schedule:
    """Freezes blocks from the input when their plasticity stops changing; unfreezes all after a rate drop.

    A linear probe is trained first.

    Source: Wang et al. 2022 (Egeria), arXiv:2201.06227; `controllers.egeria` lists the differences.

    Args:
        tests_per_epoch: Number of times an epoch that the frozen depth may change.
        **fields: As for `lp_ft`.
    """
    return lp_ft(controller="egeria", tests_per_epoch=tests_per_epoch, **fields)
