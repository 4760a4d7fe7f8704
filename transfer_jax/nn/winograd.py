"""Winograd's minimal filtering: 3x3 convolutions with 16 instead of 36 multiplications per 2x2 pixels.

Source: Lavin and Gray 2015, arXiv:1509.09308, F(2x2, 3x3), as one batched matrix product. In float32 the
rounding errors are as large as those of the direct sum, about 1e-6 of the largest value.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax

from transfer_jax.nn.conv_geometry import Window, pad

Grid = Sequence[Sequence[jax.Array]]
_Transform = Callable[[Sequence[jax.Array]], Sequence[jax.Array]]

_FEWEST_CHANNELS, _FEWEST_TILES = 32, 48


def is_faster(x: jax.Array, kernel: jax.Array, window: Window) -> bool:
    """Returns whether `correlate` applies and is faster than the direct sum on a CPU.

    It needs many channels and many pixels.

    Args:
        x: Images `(batch, height, width, channels)`.
        kernel: `(height, width, channels, out channels)`.
        window: Stride, padding and groups.
    """
    if kernel.shape[:2] != (3, 3) or window.stride > 1 or window.groups > 1 or x.dtype != jnp.float32:
        return False
    rows, columns = window.positions(x.shape, (3, 3))
    tiles = x.shape[0] * -(-rows // 2) * -(-columns // 2)
    return min(kernel.shape[2:]) >= _FEWEST_CHANNELS and tiles >= _FEWEST_TILES


def correlate(x: jax.Array, kernel: jax.Array, window: Window) -> jax.Array:
    """Convolves images with a 3x3 kernel at a stride of 1.

    Args:
        x: Images `(batch, height, width, channels)`.
        kernel: `(3, 3, channels, out channels)`.
        window: The padding.

    Returns:
        `(batch, out height, out width, out channels)`.
    """
    (height, width), batch, out = window.positions(x.shape, (3, 3)), x.shape[0], kernel.shape[3]
    rows, columns = -(-height // 2), -(-width // 2)
    (top, bottom), (left, right) = window.padding
    x = pad(x, ((top, bottom + 2 * rows - height), (left, right + 2 * columns - width)))
    pixels = [[x[:, i : i + 2 * rows : 2, j : j + 2 * columns : 2] for j in range(4)] for i in range(4)]
    tiles = _both_ways(_of_pixels, pixels)
    taps = _both_ways(_of_taps, [[kernel[i, j] for j in range(3)] for i in range(3)])
    products = lax.dot_general(_stacked(tiles), _stacked(taps), (((2,), (1,)), ((0,), (0,))))
    products = products.reshape(4, 4, batch, rows, columns, out)
    sums = _both_ways(_of_products, [[products[i, j] for j in range(4)] for i in range(4)])
    y = jnp.stack([jnp.stack(row, axis=3) for row in sums], axis=2)
    return y.reshape(batch, 2 * rows, 2 * columns, out)[:, :height, :width]


def _both_ways(transform: _Transform, grid: Grid) -> Grid:
    """Applies a transform to every column of a grid, then to every row of the result."""
    columns = [transform(column) for column in zip(*grid, strict=True)]
    return [transform(row) for row in zip(*columns, strict=True)]


def _of_pixels(d: Sequence[jax.Array]) -> Sequence[jax.Array]:
    return d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]


def _of_taps(g: Sequence[jax.Array]) -> Sequence[jax.Array]:
    return g[0], (g[0] + g[1] + g[2]) / 2, (g[0] - g[1] + g[2]) / 2, g[2]


def _of_products(m: Sequence[jax.Array]) -> Sequence[jax.Array]:
    return m[0] + m[1] + m[2], m[1] - m[2] - m[3]


def _stacked(grid: Grid) -> jax.Array:
    """Stacks all arrays of a grid as matrices `(positions, …, channels)`."""
    return jnp.stack([each.reshape(-1, each.shape[-1]) for row in grid for each in row])
