"""Convolution of images with few channels and a stride, on blocks of pixels.

A block of `stride` x `stride` pixels becomes one pixel with all of their channels, and the kernel moves by
one block. A TPU computes with 128 channels at a time: it wastes less of that with 12 channels than with the 3
of an image. The operation is the same, up to the order of its sums. Compiled for v5e, a step that trains all
of ResNet-50 takes 1.3 % fewer cycles than with XLA's own convolution of the images.
"""

import jax
import jax.numpy as jnp
from jax import lax

from transfer_jax.nn.conv_geometry import Window

_FEW_CHANNELS, _LARGE_KERNEL = 4, 7


def is_faster(x: jax.Array, kernel: jax.Array, window: Window) -> bool:
    """Returns True if `correlate` is faster on TPUs: for images and a large kernel, as in ResNet's stem."""
    side = min(kernel.shape[:2])
    few = window.groups == 1 and x.shape[-1] <= _FEW_CHANNELS
    return few and window.stride == 2 and side >= _LARGE_KERNEL


def correlate(x: jax.Array, kernel: jax.Array, window: Window) -> jax.Array:
    """Convolves images with a kernel.

    Args:
        x: `(batch, height, width, channels)`.
        kernel: `(height, width, channels, out channels)`.
        window: Stride and padding; one group.

    Returns:
        `(batch, out height, out width, out channels)`.
    """
    stride, size = window.stride, kernel.shape[:2]
    places = window.positions(x.shape, size)
    # The first row of the kernel moves to the first row of a block.
    before = [-low % stride for low, _ in window.padding]
    after = [-(side + zeros) % stride for side, zeros in zip(size, before, strict=True)]
    kernel = jnp.pad(kernel, [*zip(before, after, strict=True), (0, 0), (0, 0)])
    x = jnp.pad(x, [(0, 0), *((0, -side % stride) for side in x.shape[1:3]), (0, 0)])
    blocks = _blocks(x, stride)
    height, width = (side // stride for side in kernel.shape[:2])
    kernel = kernel.reshape(height, stride, width, stride, *kernel.shape[2:])
    kernel = kernel.transpose(0, 2, 1, 3, 4, 5).reshape(height, width, -1, kernel.shape[-1])
    padding = [
        ((low + zeros) // stride, count - 1 + taps - length - (low + zeros) // stride)
        for (low, _), zeros, count, taps, length in zip(
            window.padding, before, places, kernel.shape[:2], blocks.shape[1:3], strict=True
        )
    ]
    return lax.conv_general_dilated(
        blocks, kernel, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _blocks(x: jax.Array, stride: int) -> jax.Array:
    """Returns the blocks of pixels, with the channels of all pixels of a block, row by row."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // stride, stride, width // stride, stride, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height // stride, width // stride, -1)
