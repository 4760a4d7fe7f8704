"""Recipes that train all blocks of the network in the last phase."""

from collections.abc import Sequence
from typing import Any

from transfer_jax.fields import as_tuple
from transfer_jax.freezing.phase import Phase
from transfer_jax.freezing.recipes.chollet import feature_extraction
from transfer_jax.freezing.schedule import Schedule


def lp_ft(*, head_epochs: int = 60, epochs: int = 10, learning_rate: float = 1e-4, **fields: Any) -> Schedule:
    """Trains a linear probe on cached features, then fine-tunes all parameters from that head.

    Batch statistics stay frozen.

    Source: Kumar et al. 2022 (LP-FT), arXiv:2202.10054.

    Example:
        >>> print(lp_ft(epochs=8))
        head: head x 60 -> fine-tuning: all_() x 8

    Args:
        head_epochs: Epochs of the probe, on cached features; 0 omits the probe.
        epochs: Epochs of fine-tuning.
        learning_rate: The highest learning rate of fine-tuning.
        **fields: Other fields of the second `Phase`.
    """
    settings = {"name": "fine-tuning", "warmup": 0.1, "train": "all_()", **fields}
    schedule = Schedule((Phase(epochs=epochs, learning_rate=learning_rate, **settings),))
    return feature_extraction(epochs=head_epochs) + schedule if head_epochs else schedule


def wise_ft(alpha: float = 0.5, **fields: Any) -> Schedule:
    """Fine-tunes all parameters and averages them with those of the probe: `(1 - alpha) w0 + alpha w1`.

    Source: Wortsman et al. 2021 (WiSE-FT), arXiv:2109.01903.

    Args:
        alpha: Weight of the fine-tuned parameters w1, in (0, 1].
        **fields: As for `lp_ft`.
    """
    return lp_ft(interpolate=alpha, **fields)


def l2_sp(alpha: float = 0.1, beta: float = 0.01, **fields: Any) -> Schedule:
    """Fine-tunes all parameters with the penalty `alpha/2 |w - w0|^2 + beta/2 |w_head|^2`.

    The penalty keeps the backbone near its pretrained weights w0.

    Source: Li et al. 2018 (L2-SP), arXiv:1802.01483; the defaults are those of the authors' code.

    Args:
        alpha: Strength of the penalty on the backbone.
        beta: Strength of the penalty on the new head.
        **fields: As for `lp_ft`.
    """
    return lp_ft(l2_sp=alpha, l2_head=beta, **fields)


def layer_decay(decay: float = 0.75, *, start: int = 1, **fields: Any) -> Schedule:
    """Fine-tunes all parameters with learning rates that decrease from each block to the one below it.

    Source: Bao et al. 2021 (BEiT), arXiv:2106.08254, and He et al. 2021 (MAE), arXiv:2111.06377, with
    `start=1`: the factor of the last block is `decay`. Clark et al. 2020 (ELECTRA), arXiv:2003.10555, with
    `start=2`: it is `decay ** 2`.

    Args:
        decay: Factor of the learning rate from each block to the one below it, in (0, 1].
        start: Power of the factor at the last block.
        **fields: As for `lp_ft`.
    """
    return lp_ft(layer_decay=decay, decay_start=start, **fields)


def gradual_unfreezing(
    groups: Sequence[str],
    *,
    last_epochs: int = 10,
    head_epochs: int = 1,
    learning_rate: float = 1e-3,
    decay: float = 2.6,
    warmup: float = 0.1,
    **fields: Any,
) -> Schedule:
    """Trains the head, then unfreezes one more group of blocks each epoch from the top, then trains all.

    The learning rate of each group is that of the group above it divided by `decay`. The rates follow a
    slanted triangle over the whole schedule. All phases but the last one keep their last epoch, because they
    are parts of one training, of which each alone may have no gain.

    Source: Howard and Ruder 2018 (ULMFiT), arXiv:1801.06146: a factor of 2.6, a warm-up of 0.1 (`cut_frac`),
    a ratio of 32.

    Args:
        groups: Names of the first block of each group, input side first, such as
            `("stem", "layer3", "layer4")`. The first group starts with the lowest block.
        last_epochs: Epochs with all blocks trainable.
        head_epochs: Epochs with only the head trainable.
        learning_rate: The highest learning rate of the head.
        decay: Ratio of a group's learning rate to that of the group below it.
        warmup: Fraction of the schedule in which the learning rate increases.
        **fields: Other fields of all phases.

    Raises:
        ValueError: If `groups` is empty.
    """
    groups = as_tuple(groups)
    if not groups:
        raise ValueError("gradual_unfreezing needs the first block of at least one group")
    stages = [("head", head_epochs)]
    stages += [(f"from_({name!r})", 1) for name in reversed(groups[1:])]
    stages += [("all_()", last_epochs)]
    return Schedule(
        tuple(
            Phase(
                name=f"unfreeze {index}" if index else "head",
                train=train,
                epochs=epochs,
                learning_rate=learning_rate,
                shape="slanted",
                clock="schedule",
                warmup=warmup,
                layer_decay=1 / decay,
                groups=tuple(groups),
                **{"keep_epoch": "auto" if index == len(groups) else "last", **fields},
            )
            for index, (train, epochs) in enumerate(stages)
        )
    )
