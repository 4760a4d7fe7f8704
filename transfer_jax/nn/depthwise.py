"""Depthwise convolution for CPUs, as one multiply-add per tap of the kernel."""

import jax
import jax.numpy as jnp
from jax import lax

from transfer_jax.nn.conv_geometry import Window, kernel_taps, pad, sum_dtype


def correlate(x: jax.Array, kernel: jax.Array, window: Window) -> jax.Array:
    """Convolves each channel with its own kernel; XLA fuses all taps into one loop.

    Args:
        x: Images `(batch, height, width, channels)`.
        kernel: `(height, width, 1, channels)`.
        window: Stride and padding.

    Returns:
        `(batch, out height, out width, channels)`.
    """
    size = kernel.shape[:2]
    total = jnp.zeros((x.shape[0], *window.positions(x.shape, size), x.shape[3]), sum_dtype(x.dtype))
    for (i, j), tap in window.pixels_per_tap(x, size):
        total += tap.astype(total.dtype) * kernel[i, j, 0].astype(total.dtype)
    return total.astype(x.dtype)


def image_gradient(shape: tuple[int, ...], kernel: jax.Array, dy: jax.Array, window: Window) -> jax.Array:
    """Returns the gradient of the images: `dy` correlated with the flipped kernel.

    With a stride, the pixels of a stride x stride tile depend on different taps. Each position in the tile is
    a small convolution without a stride, and the results are interleaved. Padding `dy` with zeros between its
    pixels would cost stride² times as much.

    Args:
        shape: Shape of the images, `(batch, height, width, channels)`.
        kernel: `(height, width, 1, channels)`.
        dy: Gradient of the output, `(batch, out height, out width, channels)`.
        window: Stride and padding.
    """
    stride = window.stride

    def along(axis: int, phase: int) -> tuple[slice, tuple[int, int]]:
        """Returns the taps that apply to the pixels `phase, phase + stride, …`, and the padding of `dy`."""
        low = window.padding[axis][0]
        tiles, behind = -(-shape[1 + axis] // stride), (phase + low) // stride
        taps = slice((phase + low) % stride, None, stride)
        count = len(range(kernel.shape[axis])[taps])
        return taps, (count - 1 - behind, tiles + behind - dy.shape[1 + axis])

    def pixels(row: int, column: int) -> jax.Array:
        (rows, rows_padding), (columns, columns_padding) = along(0, row), along(1, column)
        taps = kernel[rows, columns][::-1, ::-1]
        return correlate(dy, taps, Window(1, (rows_padding, columns_padding)))

    if stride == 1:
        return pixels(0, 0)
    tiles = jnp.stack([jnp.stack([pixels(i, j) for j in range(stride)], 3) for i in range(stride)], 2)
    batch, height, _, width, _, channels = tiles.shape
    image = tiles.reshape(batch, height * stride, width * stride, channels)
    return image[:, : shape[1], : shape[2]]


def kernel_gradient(x: jax.Array, kernel: jax.Array, dy: jax.Array, window: Window) -> jax.Array:
    """Returns the gradient of the kernel: per tap, the sum over pixels of `dy` times the shifted image.

    XLA's reduction over all but the last axis runs element by element. The sums over images and rows are
    therefore a loop that adds whole rows, and only the sum over the width is a reduction. Several rows in a
    step are a little faster on jax 0.12 and six times slower on 0.10.

    Rows are flattened, because loops over the few channels of an early layer are too short to run at full
    speed. They are flattened before the loop, because XLA does not vectorize code that divides a position
    into column and channel. For the same reason, the columns of each phase of a stride are made contiguous
    first.

    Args:
        x: Images `(batch, height, width, channels)`.
        kernel: `(height, width, 1, channels)`; only its shape and dtype are used.
        dy: Gradient of the output, `(batch, out height, out width, channels)`.
        window: Stride and padding.
    """
    stride, kernel_size = window.stride, kernel.shape[:2]
    images, (batch, height, width, channels) = pad(x, window.padding), dy.shape
    columns = [images[:, :, phase::stride] for phase in range(stride)]
    columns = [phase.reshape(*phase.shape[:2], -1) for phase in columns]
    dy, length = dy.reshape(batch * height, -1), width * channels
    dtype = sum_dtype(x.dtype)

    def add(step: int, sums: list[jax.Array]) -> list[jax.Array]:
        image, row = step // height, step % height
        above = [
            lax.dynamic_slice(phase, (image, row * stride, 0), (1, kernel_size[0], phase.shape[2]))[0]
            for phase in columns
        ]
        grads = dy[step].astype(dtype)
        taps = (
            lax.slice(above[j % stride][i], (j // stride * channels,), (j // stride * channels + length,))
            for i, j in kernel_taps(kernel_size)
        )
        return [total + tap.astype(dtype) * grads for total, tap in zip(sums, taps, strict=True)]

    zeros = [jnp.zeros(length, dtype)] * (kernel_size[0] * kernel_size[1])
    sums = lax.fori_loop(0, batch * height, add, zeros)
    gradient = jnp.stack([total.reshape(width, channels).sum(axis=0) for total in sums])
    return gradient.reshape(kernel.shape).astype(kernel.dtype)
