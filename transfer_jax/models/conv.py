"""Two-dimensional convolution that lowers well on every platform.

Accelerators get XLA's own convolution, forward and backward. On a CPU that lowering is far from what the
machine can do for kernels of three kinds: depthwise ones, written here as one multiply-add per tap of the
kernel; 1x1 ones, as a matrix product; 3x3 ones with many channels, by `winograd`. The choice falls when a
function is lowered, not when it is traced, so compiling ahead of time for another platform is not affected.
"""

import functools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from transfer_jax.models import winograd

_LAYOUT = ("NHWC", "HWIO", "NHWC")

Padding = tuple[tuple[int, int], tuple[int, int]]


class _Window(NamedTuple):
    """How a kernel moves over an image: its step and the zeros around, in pixels; the channel groups."""

    stride: int
    padding: Padding
    groups: int


def conv2d(
    x: jax.Array,
    kernel: jax.Array,
    *,
    strides: int = 1,
    padding: str | Sequence[tuple[int, int]] = "SAME",
    groups: int = 1,
) -> jax.Array:
    """Convolves images with a kernel.

    Differentiable in reverse mode. Sums of half-precision arrays are kept in float32.

    Args:
        x: Images `(batch, height, width, channels)`.
        kernel: `(height, width, channels / groups, out channels)`, of the dtype of `x`.
        strides: Step of the kernel, in pixels, in both directions.
        padding: `SAME`, `VALID`, or the zeros (before, after) for height and for width.
        groups: Number of channel groups; as many as there are channels makes it depthwise.

    Returns:
        `(batch, out height, out width, out channels)`.

    Raises:
        ValueError: If the shapes do not fit each other.
    """
    kernel_size, depth, out = kernel.shape[:2], kernel.shape[2], kernel.shape[3]
    if x.shape[-1] != depth * groups or out % groups:
        raise ValueError(
            f"{x.shape[-1]} channels do not fit a kernel of shape {kernel.shape} in {groups} groups"
        )
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(x.shape[1:3], kernel_size, (strides, strides), padding)
    (top, bottom), (left, right) = padding
    window = _Window(strides, ((int(top), int(bottom)), (int(left), int(right))), groups)
    if groups > 1 and groups == x.shape[-1] == out:
        return _depthwise(x, kernel, window)
    if groups == 1 and kernel_size == (1, 1) and not any((top, bottom, left, right)):
        return _pointwise(x, kernel, window)
    if _suits_winograd(x, kernel, window):
        return _winograd(x, kernel, window)
    return _native(x, kernel, window)


def _native(x: jax.Array, kernel: jax.Array, window: _Window) -> jax.Array:
    stride = (window.stride, window.stride)
    return lax.conv_general_dilated(
        x, kernel, stride, window.padding, dimension_numbers=_LAYOUT, feature_group_count=window.groups
    )


def _native_gradients(x, kernel, dy, window):
    return jax.vjp(functools.partial(_native, window=window), x, kernel)[1](dy)


def _by_platform(forward, gradients):
    """The convolution that is `forward` and `gradients` on a CPU, and XLA's own anywhere else."""

    @functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
    def convolution(x: jax.Array, kernel: jax.Array, window: _Window) -> jax.Array:
        return lax.platform_dependent(
            x,
            kernel,
            cpu=functools.partial(forward, window=window),
            default=functools.partial(_native, window=window),
        )

    def fwd(x, kernel, window):
        return convolution(x, kernel, window), (x, kernel)

    def bwd(window, inputs, dy):
        return lax.platform_dependent(
            *inputs,
            dy,
            cpu=functools.partial(gradients, window=window),
            default=functools.partial(_native_gradients, window=window),
        )

    convolution.defvjp(fwd, bwd)
    return convolution


def _pointwise_forward(x, kernel, window):
    step = window.stride
    return lax.dot_general(x[:, ::step, ::step], kernel[0, 0], (((3,), (0,)), ((), ())))


def _pointwise_gradients(x, kernel, dy, window):
    step, weights = window.stride, kernel[0, 0]
    dx = lax.dot_general(dy, weights, (((3,), (1,)), ((), ())))
    if step > 1:
        edges = [size - 1 - (out - 1) * step for size, out in zip(x.shape[1:3], dy.shape[1:3], strict=True)]
        between = [(0, 0, 0), *((0, edge, step - 1) for edge in edges), (0, 0, 0)]
        dx = lax.pad(dx, jnp.zeros((), dx.dtype), between)
    # Over rows of pixels, in this order: what transposing the product would give copies the larger operand.
    rows = x[:, ::step, ::step].reshape(-1, x.shape[-1]), dy.reshape(-1, dy.shape[-1])
    dkernel = lax.dot_general(*rows, (((0,), (0,)), ((), ())))
    return dx, dkernel.reshape(kernel.shape)


def _suits_winograd(x: jax.Array, kernel: jax.Array, window: _Window) -> bool:
    if kernel.shape[:2] != (3, 3) or window.stride != 1 or window.groups != 1 or x.dtype != jnp.float32:
        return False
    sizes = (size + sum(zeros) - 2 for size, zeros in zip(x.shape[1:3], window.padding, strict=True))
    return winograd.pays((x.shape[0], *sizes, kernel.shape[3]), kernel.shape)


def _winograd_forward(x, kernel, window):
    return winograd.correlate(_pad(x, window.padding), kernel)


def _winograd_gradients(x, kernel, dy, window):
    (top, bottom), (left, right) = window.padding
    around = ((2 - top, 2 - bottom), (2 - left, 2 - right))
    dx = winograd.correlate(_pad(dy, around), kernel[::-1, ::-1].swapaxes(2, 3))
    return dx, jax.vjp(lambda k: _native(x, k, window), kernel)[1](dy)[0]


def _depthwise_forward(x, kernel, window):
    return _correlate(_pad(x, window.padding), kernel, window.stride)


def _depthwise_gradients(x, kernel, dy, window):
    return _image_gradient(x.shape, kernel, dy, window), _kernel_gradient(x, kernel, dy, window)


def _pad(x: jax.Array, padding: Padding) -> jax.Array:
    low_high_interior = [(0, 0, 0), *((low, high, 0) for low, high in padding), (0, 0, 0)]
    return lax.pad(x, jnp.zeros((), x.dtype), low_high_interior)


def _correlate(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """The depthwise convolution of padded images: a multiply-add per tap, which XLA makes one loop."""
    kernel_size, dtype = kernel.shape[:2], x.dtype
    out = [(size - taps) // stride + 1 for size, taps in zip(x.shape[1:3], kernel_size, strict=True)]
    total = jnp.zeros((x.shape[0], *out, x.shape[3]), _sum_dtype(dtype))
    for i, j in _taps(kernel_size):
        stop = (x.shape[0], i + (out[0] - 1) * stride + 1, j + (out[1] - 1) * stride + 1, x.shape[3])
        tap = lax.slice(x, (0, i, j, 0), stop, (1, stride, stride, 1))
        total += tap.astype(total.dtype) * kernel[i, j, 0].astype(total.dtype)
    return total.astype(dtype)


def _image_gradient(shape: tuple[int, ...], kernel: jax.Array, dy: jax.Array, window: _Window) -> jax.Array:
    """The gradient of the images: `dy` correlated with the flipped kernel.

    With a stride, the pixels of a stride x stride tile see different taps. Each position in the tile is a
    small convolution without a stride, and the tiles are put together afterwards; spreading `dy` out with
    zeros instead would cost stride² times as much.
    """
    stride = window.stride

    def along(axis: int, phase: int) -> tuple[slice, tuple[int, int]]:
        """The taps that the pixels `phase, phase + stride, …` see, and the zeros to put around `dy`."""
        low = window.padding[axis][0]
        tiles, behind = -(-shape[1 + axis] // stride), (phase + low) // stride
        taps = slice((phase + low) % stride, None, stride)
        count = len(range(kernel.shape[axis])[taps])
        return taps, (count - 1 - behind, tiles + behind - dy.shape[1 + axis])

    def pixels(row: int, column: int) -> jax.Array:
        (rows, rows_padding), (columns, columns_padding) = along(0, row), along(1, column)
        taps = kernel[rows, columns][::-1, ::-1]
        return _correlate(_pad(dy, (rows_padding, columns_padding)), taps, 1)

    if stride == 1:
        return pixels(0, 0)
    tiles = jnp.stack([jnp.stack([pixels(i, j) for j in range(stride)], 3) for i in range(stride)], 2)
    batch, height, _, width, _, channels = tiles.shape
    whole = tiles.reshape(batch, height * stride, width * stride, channels)
    return whole[:, : shape[1], : shape[2]]


def _kernel_gradient(x: jax.Array, kernel: jax.Array, dy: jax.Array, window: _Window) -> jax.Array:
    """The gradient of the kernel: per tap, the sum over images and pixels of `dy` times the shifted image.

    XLA's reduction over all but the last axis runs element by element, so the sums over images and rows are
    written as a loop that adds whole rows, and only the sum over the width is left to a reduction. Several
    rows a step are a little faster on jax 0.12 and six times slower on 0.10.

    Rows are flat, since loops over the few channels of an early layer are too short to run at full speed, and
    flat before the loop, since XLA vectorizes nothing where it has to take a position apart into column and
    channel. For the same reason the columns that a tap sees with a stride are put side by side first.
    """
    stride, kernel_size = window.stride, kernel.shape[:2]
    images, (batch, height, width, channels) = _pad(x, window.padding), dy.shape
    columns = [images[:, :, phase::stride] for phase in range(stride)]
    columns = [phase.reshape(*phase.shape[:2], -1) for phase in columns]
    dy, length = dy.reshape(batch * height, -1), width * channels
    sum_dtype = _sum_dtype(x.dtype)

    def add(step: int, sums: list[jax.Array]) -> list[jax.Array]:
        image, row = step // height, step % height
        above = [
            lax.dynamic_slice(phase, (image, row * stride, 0), (1, kernel_size[0], phase.shape[2]))[0]
            for phase in columns
        ]
        grads = dy[step].astype(sum_dtype)
        taps = (
            lax.slice(above[j % stride][i], (j // stride * channels,), (j // stride * channels + length,))
            for i, j in _taps(kernel_size)
        )
        return [total + tap.astype(sum_dtype) * grads for total, tap in zip(sums, taps, strict=True)]

    zeros = [jnp.zeros(length, sum_dtype)] * (kernel_size[0] * kernel_size[1])
    sums = lax.fori_loop(0, batch * height, add, zeros)
    gradient = jnp.stack([total.reshape(width, channels).sum(axis=0) for total in sums])
    return gradient.reshape(kernel.shape).astype(kernel.dtype)


def _taps(kernel_size: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    return ((i, j) for i in range(kernel_size[0]) for j in range(kernel_size[1]))


def _sum_dtype(dtype):
    return jnp.promote_types(dtype, jnp.float32)


_depthwise = _by_platform(_depthwise_forward, _depthwise_gradients)
_pointwise = _by_platform(_pointwise_forward, _pointwise_gradients)
_winograd = _by_platform(_winograd_forward, _winograd_gradients)
