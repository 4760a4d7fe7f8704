"""Max pooling."""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from transfer_jax.nn.conv_geometry import Window, pad, sum_dtype
from transfer_jax.nn.per_platform import by_platform


def max_pool(
    x: jax.Array, size: int, strides: int, padding: int = 0, *, ceil_mode: bool = False
) -> jax.Array:
    """Returns the maximum over windows of `size` x `size` pixels.

    Padded pixels are never the maximum.

    Args:
        x: `(batch, height, width, channels)`.
        size: Side of a window, in pixels.
        strides: Stride of the windows, in pixels.
        padding: Padding on every side, in pixels.
        ceil_mode: Whether to keep a last window that reaches beyond the padded image, as PyTorch's
            `ceil_mode`.

    Returns:
        `(batch, out height, out width, channels)`.
    """
    rows, columns = (-(length + 2 * padding - size) % strides if ceil_mode else 0 for length in x.shape[1:3])
    around = ((padding, padding + rows), (padding, padding + columns))
    return _max_pool(x, (size, Window(strides, around)))


def _native(x: jax.Array, static: tuple[int, Window]) -> jax.Array:
    size, (step, around, _) = static
    padding = ((0, 0), *around, (0, 0))
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, size, size, 1), (1, step, step, 1), padding)


def _by_taps(x: jax.Array, static: tuple[int, Window]) -> jax.Array:
    """Pools by one maximum per pixel of the window; on a CPU its gradient costs a fifth of XLA's own."""
    size, (step, around, _) = static
    padded = pad(x.astype(sum_dtype(x.dtype)), around, -jnp.inf)
    seen = Window(step, ((0, 0), (0, 0))).pixels_per_tap(padded, (size, size))
    return functools.reduce(_first_largest, (pixels for _, pixels in seen)).astype(x.dtype)


def _first_largest(a: jax.Array, b: jax.Array) -> jax.Array:
    """Returns the maximum, or NaN if one is NaN; of equal values only `a` has a gradient."""
    return jnp.where((b > a) | jnp.isnan(b), b, a)


_max_pool = by_platform(_by_taps, _native)
