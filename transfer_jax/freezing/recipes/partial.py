"""Recipes that train a chosen part of the network together with the head."""

from typing import Any

from transfer_jax.freezing.recipes.whole import lp_ft
from transfer_jax.freezing.schedule import Schedule


def top_k(count: int, **others: Any) -> Schedule:
    """The last `count` blocks.

    Source: partial fine-tuning in He et al. 2021 (MAE), arXiv:2111.06377, figure 9.

    Args:
        count: How many blocks of the backbone train.
        **others: As for `partial`.
    """
    return partial(f"top({count})", **others)


def surgical(first: str, last: str | None = None, **others: Any) -> Schedule:
    """One run of blocks anywhere, such as the first ones where the images look different.

    Source: Lee et al. 2022, arXiv:2210.11466.

    Args:
        first: The lowest block or stage that trains.
        last: The highest; None for `first` alone.
        **others: As for `partial`.
    """
    return partial(f"between({first!r}, {last or first!r}) | head", **others)


def bitfit(**others: Any) -> Schedule:
    """The biases; it saves memory, not depth.

    Source: Ben Zaken et al. 2021, arXiv:2106.10199.
    """
    return partial("role('bias') | head", **{"learning_rate": 1e-3, **others})


def norm_only(**others: Any) -> Schedule:
    """The scales and biases of normalizations.

    Source: Frankle et al. 2020, arXiv:2003.00152.
    """
    return partial("role('norm') | head", **{"learning_rate": 1e-3, **others})


def attention_only(**others: Any) -> Schedule:
    """The attention of a transformer.

    Source: Touvron et al. 2022, arXiv:2203.09795.
    """
    return partial("role('attention') | head", **others)


def lora(
    kernels: str = "match('attn/qkv/kernel')", *, rank: int = 4, alpha: float = 8.0, **others: Any
) -> Schedule:
    """Low-rank updates of the query and value projections, merged into plain weights at the end.

    Source: Hu et al. 2021, arXiv:2106.09685.

    Args:
        kernels: Selector of the kernels that are adapted; `role('kernel')` adapts a convolutional network.
        rank: Rank of the updates.
        alpha: They are scaled by `alpha / rank`.
        **others: As for `partial`.
    """
    settings = {"learning_rate": 1e-3, "lora": kernels, "lora_rank": rank, "lora_alpha": alpha}
    return partial("head", **{**settings, **others})


def partial(train: str, **others: Any) -> Schedule:
    """The head, and then what a selector picks.

    Args:
        train: The selector.
        **others: As for `lp_ft`.
    """
    return lp_ft(**{"name": "part", "train": train, **others})
