"""Convolutions that average before they reduce the resolution (Zhang 2019, arXiv:1904.11486)."""

import jax
import jax.numpy as jnp
from flax import nnx

from transfer_jax.nn.conv import conv2d
from transfer_jax.nn.layers import ConvNorm

FILTERS = ("average", "average_ceil", "blur")
"""The filters: the mean of 2x2 pixels, and a 3x3 binomial filter with zeros around the image.

`average` rounds odd sizes down. `average_ceil` rounds them up: at the edge, the mean is over the fewer pixels
inside the image.
"""


def halve(x: jax.Array, filter_name: str) -> jax.Array:
    """Returns images at half the resolution, each pixel a weighted mean of its neighbors.

    Args:
        x: `(batch, height, width, channels)`.
        filter_name: One of `FILTERS`. `blur` rounds odd sizes up.

    Returns:
        `(batch, height / 2, width / 2, channels)`.

    Raises:
        ValueError: If there is no filter of that name.
    """
    match filter_name:
        case "average":
            return nnx.avg_pool(x, (2, 2), (2, 2))
        case "average_ceil":
            return nnx.avg_pool(x, (2, 2), (2, 2), padding="SAME", count_include_pad=False)
        case "blur":
            row = jnp.array([0.25, 0.5, 0.25], x.dtype)
            kernel = jnp.broadcast_to(jnp.outer(row, row)[:, :, None, None], (3, 3, 1, x.shape[-1]))
            return conv2d(x, kernel, strides=2, padding=((1, 1), (1, 1)), groups=x.shape[-1])
    raise ValueError(f"the filter must be one of {', '.join(FILTERS)}, got {filter_name!r}")


class AntialiasedConvNorm(ConvNorm):
    """A convolution without stride, a batch normalization, an activation, and a filter that halves the image.

    Args:
        *sizes: As for `ConvNorm`.
        filter_name: One of `FILTERS`.
        **options: As for `ConvNorm`.
    """

    def __init__(self, *sizes: int, filter_name: str, **options: object) -> None:
        super().__init__(*sizes, **options)  # pyright: ignore[reportArgumentType]
        self.filter_name = filter_name

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        return halve(super().__call__(x), self.filter_name)
