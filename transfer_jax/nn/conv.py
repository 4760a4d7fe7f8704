"""Two-dimensional convolution with a fast implementation on every platform.

GPUs and TPUs use XLA's own convolution, forward and backward; on TPUs, large kernels on images see blocks of
pixels (`space_to_depth`). On a CPU, XLA's convolution is slow for some kernels, which are implemented here:
depthwise kernels as one multiply-add per tap of the kernel, 1x1 kernels as a matrix product, and 3x3 kernels
with many channels by `winograd`. In bfloat16, all other kernels with many channels are a matrix product per
tap, because XLA's own convolution computes in float32.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from transfer_jax.nn import depthwise, space_to_depth, winograd
from transfer_jax.nn.conv_geometry import Window, sum_dtype
from transfer_jax.nn.per_platform import by_platform, gradients_of

_LAYOUT = ("NHWC", "HWIO", "NHWC")
_MANY_CHANNELS = 32


def conv2d(
    x: jax.Array,
    kernel: jax.Array,
    *,
    strides: int = 1,
    padding: str | Sequence[tuple[int, int]] = "SAME",
    groups: int = 1,
) -> jax.Array:
    """Convolves images with a kernel.

    It is differentiable in reverse mode. Sums of half-precision arrays are accumulated in float32.

    Args:
        x: Images `(batch, height, width, channels)`.
        kernel: `(height, width, channels / groups, out channels)`, in the dtype of `x`.
        strides: Stride of the kernel, in pixels, in both directions.
        padding: `SAME`, `VALID`, or the numbers of zeros (before, after) for height and for width.
        groups: Number of channel groups. As many groups as channels make a depthwise convolution.

    Returns:
        `(batch, out height, out width, out channels)`.

    Raises:
        ValueError: If the channels do not match the kernel and the groups.
    """
    kernel_size, depth, out = kernel.shape[:2], kernel.shape[2], kernel.shape[3]
    if x.shape[-1] != depth * groups or out % groups:
        raise ValueError(
            f"{x.shape[-1]} channels do not match a kernel of shape {kernel.shape} in {groups} groups; "
            "the kernel needs (height, width, channels / groups, a multiple of groups)"
        )
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(x.shape[1:3], kernel_size, (strides, strides), padding)
    (top, bottom), (left, right) = padding
    window = Window(strides, ((int(top), int(bottom)), (int(left), int(right))), groups)
    if groups > 1 and groups == x.shape[-1] == out:
        return _depthwise(x, kernel, window)
    if groups == 1 and kernel_size == (1, 1) and not any((top, bottom, left, right)):
        return _pointwise(x, kernel, window)
    if groups == 1 and x.dtype == jnp.bfloat16 and min(depth, out) >= _MANY_CHANNELS:
        return _by_taps(x, kernel, window)
    if winograd.is_faster(x, kernel, window):
        return _winograd(x, kernel, window)
    if space_to_depth.is_faster(x, kernel, window):
        return _by_blocks(x, kernel, window)
    return _native(x, kernel, window)


def _native(x: jax.Array, kernel: jax.Array, window: Window) -> jax.Array:
    stride = (window.stride, window.stride)
    return lax.conv_general_dilated(
        x, kernel, stride, window.padding, dimension_numbers=_LAYOUT, feature_group_count=window.groups
    )


def _by_blocks(x: jax.Array, kernel: jax.Array, window: Window) -> jax.Array:
    """Convolves on blocks of pixels on TPUs.

    It is differentiated by JAX, which keeps the blocks for the gradient of the kernel.
    """
    on_tpu, elsewhere = (
        functools.partial(each, window=window) for each in (space_to_depth.correlate, _native)
    )
    return lax.platform_dependent(x, kernel, tpu=on_tpu, default=elsewhere)


def _pointwise_forward(x, kernel, window):
    step = window.stride
    return _product(x[:, ::step, ::step], kernel[0, 0]).astype(x.dtype)


def _pointwise_gradients(x, kernel, dy, window):
    step, weights = window.stride, kernel[0, 0]
    dx = _product(dy, weights.T).astype(x.dtype)
    if step > 1:
        edges = [size - 1 - (out - 1) * step for size, out in zip(x.shape[1:3], dy.shape[1:3], strict=True)]
        between = [(0, 0, 0), *((0, edge, step - 1) for edge in edges), (0, 0, 0)]
        dx = lax.pad(dx, jnp.zeros((), dx.dtype), between)
    # A product over rows of pixels, in this order: the transpose of the forward product copies the larger
    # operand.
    rows = x[:, ::step, ::step].reshape(-1, x.shape[-1]), dy.reshape(-1, dy.shape[-1])
    dkernel = lax.dot_general(*rows, (((0,), (0,)), ((), ())))
    return dx, dkernel.reshape(kernel.shape)


def _product(x: jax.Array, weights: jax.Array) -> jax.Array:
    """Returns the matrix product over channels; sums in float32 are also the fastest in half precision."""
    channels = (((3,), (0,)), ((), ()))
    return lax.dot_general(x, weights, channels, preferred_element_type=sum_dtype(x.dtype))


def _by_taps_forward(x, kernel, window):
    products = [_product(seen, kernel[tap]) for tap, seen in window.pixels_per_tap(x, kernel.shape[:2])]
    return functools.reduce(jnp.add, products).astype(x.dtype)


def _gradients_by(forward):
    """Returns gradients that use `forward` for images without a stride, and XLA for kernels."""

    def gradients(x, kernel, dy, window):
        if window.stride > 1:
            return gradients_of(_native)(x, kernel, dy, window)
        dx = forward(dy, kernel[::-1, ::-1].swapaxes(2, 3), window.gradient_window(kernel.shape[:2]))
        return dx, jax.vjp(lambda k: _native(x, k, window), kernel)[1](dy)[0]

    return gradients


def _depthwise_gradients(x, kernel, dy, window):
    gradients = depthwise.image_gradient(x.shape, kernel, dy, window)
    return gradients, depthwise.kernel_gradient(x, kernel, dy, window)


_depthwise = by_platform(depthwise.correlate, _native, _depthwise_gradients)
_pointwise = by_platform(_pointwise_forward, _native, _pointwise_gradients)
_winograd = by_platform(winograd.correlate, _native, _gradients_by(winograd.correlate))
_by_taps = by_platform(_by_taps_forward, _native, _gradients_by(_by_taps_forward))
