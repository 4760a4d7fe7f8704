"""Stride, padding and groups of a convolution, and the positions of its kernel on an image."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

Padding = tuple[tuple[int, int], tuple[int, int]]


class Window(NamedTuple):
    """The stride, the padding and the groups of a convolution.

    Attributes:
        stride: Stride of the kernel in pixels, in both directions.
        padding: Zeros around an image, in pixels: (above, below), (left, right).
        groups: Number of channel groups.
    """

    stride: int
    padding: Padding
    groups: int = 1

    def positions(self, shape: Sequence[int], size: Sequence[int]) -> tuple[int, int]:
        """Returns the rows and columns of the output.

        Args:
            shape: Shape of the images, `(batch, height, width, channels)`.
            size: Height and width of the kernel, in pixels.
        """
        (top, bottom), (left, right) = self.padding
        height, width = shape[1] + top + bottom, shape[2] + left + right
        return (height - size[0]) // self.stride + 1, (width - size[1]) // self.stride + 1

    def pixels_per_tap(
        self, x: jax.Array, size: Sequence[int]
    ) -> Iterator[tuple[tuple[int, int], jax.Array]]:
        """Yields each tap of a kernel, with the pixels it is multiplied with.

        Args:
            x: Images `(batch, height, width, channels)`.
            size: Height and width of the kernel, in pixels.

        Yields:
            The row and column of the tap, and `(batch, out height, out width, channels)`.
        """
        (rows, columns), stride = self.positions(x.shape, size), self.stride
        x = pad(x, self.padding)
        for i, j in kernel_taps(size):
            stop = (x.shape[0], i + (rows - 1) * stride + 1, j + (columns - 1) * stride + 1, x.shape[3])
            yield (i, j), lax.slice(x, (0, i, j, 0), stop, (1, stride, stride, 1))

    def gradient_window(self, size: Sequence[int]) -> "Window":
        """Returns the window of the flipped kernel over gradients, which gives the gradient of the images.

        It is valid for a stride of 1 only.
        """
        low_high = zip(self.padding, size, strict=True)
        rows, columns = ((taps - 1 - low, taps - 1 - high) for (low, high), taps in low_high)
        return Window(1, (rows, columns), self.groups)


def pad(x: jax.Array, padding: Padding, value: float = 0.0) -> jax.Array:
    """Pads images `(batch, height, width, channels)` with a value; negative counts crop them."""
    low_high_interior = [(0, 0, 0), *((low, high, 0) for low, high in padding), (0, 0, 0)]
    return lax.pad(x, jnp.asarray(value, x.dtype), low_high_interior)


def kernel_taps(size: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Returns the row and column of every tap of a kernel of `size` (height, width) pixels."""
    return ((i, j) for i in range(size[0]) for j in range(size[1]))


def sum_dtype(dtype: jax.typing.DTypeLike) -> jnp.dtype:
    """Returns the dtype for sums of products: at least float32."""
    return jnp.promote_types(dtype, jnp.float32)
