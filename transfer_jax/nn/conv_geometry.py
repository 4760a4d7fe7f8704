"""How the kernel of a convolution moves over images."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

Padding = tuple[tuple[int, int], tuple[int, int]]


class Window(NamedTuple):
    """How a kernel moves over images.

    Attributes:
        stride: Its step in pixels, in both directions.
        padding: The zeros around an image, in pixels: above and below it, left and right of it.
        groups: Number of channel groups.
    """

    stride: int
    padding: Padding
    groups: int = 1

    def positions(self, shape: Sequence[int], size: Sequence[int]) -> tuple[int, int]:
        """Rows and columns of the output, for images of a shape and a kernel of `size` pixels."""
        (top, bottom), (left, right) = self.padding
        height, width = shape[1] + top + bottom, shape[2] + left + right
        return (height - size[0]) // self.stride + 1, (width - size[1]) // self.stride + 1

    def pixels_per_tap(
        self, x: jax.Array, size: Sequence[int]
    ) -> Iterator[tuple[tuple[int, int], jax.Array]]:
        """The taps of a kernel of `size` pixels, each with the pixels that it sees, one per position."""
        (rows, columns), stride = self.positions(x.shape, size), self.stride
        x = pad(x, self.padding)
        for i, j in kernel_taps(size):
            stop = (x.shape[0], i + (rows - 1) * stride + 1, j + (columns - 1) * stride + 1, x.shape[3])
            yield (i, j), lax.slice(x, (0, i, j, 0), stop, (1, stride, stride, 1))

    def gradient_window(self, size: Sequence[int]) -> "Window":
        """With a stride of 1: that of the flipped kernel over gradients, which gives the images' gradient."""
        low_high = zip(self.padding, size, strict=True)
        rows, columns = ((taps - 1 - low, taps - 1 - high) for (low, high), taps in low_high)
        return Window(1, (rows, columns), self.groups)


def pad(x: jax.Array, padding: Padding, value: float = 0.0) -> jax.Array:
    """Images `(batch, height, width, channels)` with a value around; negative counts cut off."""
    low_high_interior = [(0, 0, 0), *((low, high, 0) for low, high in padding), (0, 0, 0)]
    return lax.pad(x, jnp.asarray(value, x.dtype), low_high_interior)


def kernel_taps(size: Sequence[int]) -> Iterator[tuple[int, int]]:
    """The row and column of every tap of a kernel of `size` pixels."""
    return ((i, j) for i in range(size[0]) for j in range(size[1]))


def sum_dtype(dtype: jax.typing.DTypeLike) -> jnp.dtype:
    """That of sums of products: at least float32."""
    return jnp.promote_types(dtype, jnp.float32)
