"""Recipes that train a part of the network together with the head."""

from typing import Any

from transfer_jax.freezing.recipes.full_network import lp_ft
from transfer_jax.freezing.schedule import Schedule


def top_k(count: int, **fields: Any) -> Schedule:
    """Trains a linear probe, then the last `count` blocks and the head.

    Source: partial fine-tuning in He et al. 2021 (MAE), arXiv:2111.06377, figure 9.

    Args:
        count: Number of the backbone's last blocks that train.
        **fields: As for `lp_ft`.
    """
    return partial(f"top({count})", **fields)


def surgical(first: str, last: str | None = None, **fields: Any) -> Schedule:
    """Trains a linear probe, then a range of blocks and the head.

    The first blocks suit images that look different from the pretraining images.

    Source: Lee et al. 2022 (surgical fine-tuning), arXiv:2210.11466.

    Args:
        first: Name of the lowest block or stage that trains.
        last: Name of the highest block or stage that trains; None trains `first` only.
        **fields: As for `lp_ft`.
    """
    return partial(f"between({first!r}, {last or first!r}) | head", **fields)


def bitfit(**fields: Any) -> Schedule:
    """Trains a linear probe, then all biases and the head. It saves memory, but no backward computation.

    Source: Ben Zaken et al. 2021 (BitFit), arXiv:2106.10199.

    Args:
        **fields: As for `lp_ft`.
    """
    return partial("role('bias') | head", **{"learning_rate": 1e-3, **fields})


def norm_only(**fields: Any) -> Schedule:
    """Trains a linear probe, then the scales and biases of all normalizations, and the head.

    Source: Frankle et al. 2020, arXiv:2003.00152.

    Args:
        **fields: As for `lp_ft`.
    """
    return partial("role('norm') | head", **{"learning_rate": 1e-3, **fields})


def attention_only(**fields: Any) -> Schedule:
    """Trains a linear probe, then the attention of a transformer and the head.

    Source: Touvron et al. 2022, arXiv:2203.09795.

    Args:
        **fields: As for `lp_ft`.
    """
    return partial("role('attention') | head", **fields)


def lora(
    kernels: str = "match('attn/qkv/kernel')", *, rank: int = 4, alpha: float = 8.0, **fields: Any
) -> Schedule:
    """Trains a linear probe, then low-rank updates of kernels and the head.

    By default the query and value projections of a transformer are adapted.

    Source: Hu et al. 2021 (LoRA), arXiv:2106.09685.

    Args:
        kernels: Selector of the adapted kernels; use `role('kernel')` for a convolutional network.
        rank: Rank of the updates.
        alpha: Numerator of the scale of the updates, `alpha / rank`.
        **fields: As for `lp_ft`.
    """
    adapter = f"lora({kernels}, rank={rank}, alpha={alpha})"
    return partial("head", **{"learning_rate": 1e-3, "adapter": adapter, **fields})


def partial(train: str, **fields: Any) -> Schedule:
    """Trains a linear probe, then the parameters of a selector.

    Args:
        train: The selector, which includes the head.
        **fields: As for `lp_ft`.
    """
    return lp_ft(**{"name": "part", "train": train, **fields})
