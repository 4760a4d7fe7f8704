"""Recipes that train the whole network in the end, or the features of the whole of it."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from transfer_jax.freezing.phase import Phase
from transfer_jax.freezing.recipes.textbook import feature_extraction, head_alone
from transfer_jax.freezing.schedule import Schedule


def lp_ft(*, head_epochs: int = 60, epochs: int = 10, learning_rate: float = 1e-4, **others: Any) -> Schedule:
    """A linear probe first, then everything from that head; batch statistics stay frozen.

    Source: Kumar et al. 2022, arXiv:2202.10054.

    Args:
        head_epochs: Epochs of the probe, on features that were extracted once; 0 leaves it out.
        epochs: Epochs of fine-tuning.
        learning_rate: Its rate.
        **others: Other fields of the second phase.
    """
    settings = {"name": "fine-tuning", "warmup": 0.1, "train": "all_()", **others}
    schedule = Schedule((Phase(epochs=epochs, learning_rate=learning_rate, **settings),))
    return feature_extraction(epochs=head_epochs) + schedule if head_epochs else schedule


def wise_ft(alpha: float = 0.5, **others: Any) -> Schedule:
    """Weights between those of the linear probe and those of fine-tuning: `(1 - alpha) w0 + alpha w1`.

    Source: Wortsman et al. 2021, arXiv:2109.01903.

    Args:
        alpha: Share of the fine-tuned weights, in (0, 1].
        **others: As for `lp_ft`.
    """
    return lp_ft(interpolate=alpha, **others)


def l2_sp(alpha: float = 0.1, beta: float = 0.01, **others: Any) -> Schedule:
    """Fine-tuning with a pull to the pretrained weights: `alpha/2 |w - w0|^2 + beta/2 |w_head|^2`.

    Source: Li et al. 2018, arXiv:1802.01483; the defaults are those of the authors' code.

    Args:
        alpha: Strength of the pull of the backbone.
        beta: Strength of the decay of the new head.
        **others: As for `lp_ft`.
    """
    return lp_ft(l2_sp=alpha, l2_head=beta, **others)


def layer_decay(decay: float = 0.75, *, start: int = 1, **others: Any) -> Schedule:
    """Fine-tuning with a rate that falls by a factor from each block to the one below it.

    Source: Bao et al. 2021 (BEiT), arXiv:2106.08254, and He et al. 2021 (MAE), arXiv:2111.06377, with
    `start=1`: the last block has `decay`; Clark et al. 2020 (ELECTRA), arXiv:2003.10555, with `start=2`: it
    has `decay ** 2`.

    Args:
        decay: The factor.
        start: Its power at the last block.
        **others: As for `lp_ft`.
    """
    return lp_ft(layer_decay=decay, decay_start=start, **others)


def gradual_unfreezing(
    groups: Sequence[str],
    *,
    last_epochs: int = 10,
    head_epochs: int = 1,
    learning_rate: float = 1e-3,
    decay: float = 2.6,
    warmup: float = 0.1,
    **others: Any,
) -> Schedule:
    """The head first, then one more group of blocks an epoch from the top, then all of it for longer.

    Each group learns `decay` times slower than the one above it, and the rate follows a slanted triangle over
    the whole schedule.

    Source: Howard and Ruder 2018 (ULMFiT), arXiv:1801.06146: a factor of 2.6, a cut of 0.1, a ratio of 32.

    Args:
        groups: First blocks of the groups, input side first, such as `("stem", "layer3", "layer4")`.
        last_epochs: Epochs with everything unfrozen.
        head_epochs: Epochs with the head alone.
        learning_rate: The head's highest rate.
        decay: Factor from each group to the one below.
        warmup: Share of the schedule in which the rate climbs.
        **others: Other fields of all phases.
    """
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
                **others,
            )
            for index, (train, epochs) in enumerate(stages)
        )
    )


def head2toe(
    share: float = 0.05, strength: float = 1e-4, *, epochs: int = 60, learning_rate: float = 1e-2
) -> Schedule:
    """A head on the outputs of all blocks under a group lasso, then one on the best of these features alone.

    The run must say `taps=True`, or the features are those of the last block only. Outputs are pooled to
    their means; the authors also try finer pooling.

    Source: Evci et al. 2022, arXiv:2201.03529: the loss plus `strength * sum_i |w_i|` over the features i,
    of which the share with the largest `|w_i|` is kept.

    Args:
        share: Share of the features that is kept.
        strength: Strength of the group lasso.
        epochs: Epochs of each phase.
        learning_rate: Rate of each phase.
    """
    choosing = head_alone(epochs, learning_rate, group_lasso=strength, cache="require")
    (chosen,) = head_alone(epochs, learning_rate, keep=share, moments="reset", cache="require").phases
    return choosing + Schedule((dataclasses.replace(chosen, name="chosen features"),))


def frofa(brightness: float = 0.1, *, epochs: int = 60, learning_rate: float = 3e-3) -> Schedule:
    """A head on cached features whose channels are shifted at random in every step.

    Source: Bär et al. 2024 (FroFA), arXiv:2403.10519.

    Args:
        brightness: Largest shift as a share of a channel's range.
        epochs: Epochs.
        learning_rate: Rate.
    """
    return head_alone(epochs, learning_rate, feature_brightness=brightness, cache="require")
