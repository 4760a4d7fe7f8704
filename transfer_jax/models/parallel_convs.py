"""Parallel convolutions that are summed, and that are computed as one in inference mode.

Sources: Ding et al. 2021, arXiv:2101.03697 (RepVGG); Vasu et al. 2022, arXiv:2206.04040 (MobileOne).
"""

import functools

import jax
import jax.numpy as jnp
from flax import nnx

from transfer_jax.nn.conv import conv2d
from transfer_jax.nn.layers import BatchNorm, ConvNorm


class ParallelConvs(nnx.Module):
    """A sum of convolutions with kernels of different sizes and, optionally, of the input.

    Each of them has a normalization: `norm` is that of the input, `conv0` … are the convolutions. The module
    maps `(batch, height, width, in_features)` to `(batch, height / strides, width / strides, features)`.

    Args:
        in_features: Number of channels of the input.
        features: Number of channels of the output.
        sizes: Sides of the kernels in pixels, the largest first.
        strides: Stride of the kernels, in pixels.
        groups: Number of channel groups.
        identity: Whether the sum has the input.
        rngs: Source of the initial parameters.
    """

    def __init__(
        self,
        in_features: int,
        features: int,
        sizes: tuple[int, ...],
        *,
        strides: int = 1,
        groups: int = 1,
        identity: bool = False,
        rngs: nnx.Rngs,
    ) -> None:
        self.norm = BatchNorm(features, epsilon=1e-5, momentum=0.9, rngs=rngs) if identity else None
        for index, size in enumerate(sizes):
            conv = ConvNorm(
                in_features,
                features,
                size,
                strides=strides,
                padding=size // 2,
                groups=groups,
                momentum=0.9,
                rngs=rngs,
            )
            setattr(self, f"conv{index}", conv)
        self.sizes = sizes

    def __call__(self, x: jax.Array) -> jax.Array:
        if not self.sizes:
            assert self.norm is not None
            return self.norm(x)
        y = self.convolved(x)
        return y if self.norm is None else y + self.norm(x)

    def convolved(self, x: jax.Array) -> jax.Array:
        """Returns the sum of the convolutions, without the input."""
        first, *others = convs = [getattr(self, f"conv{index}") for index in range(len(self.sizes))]
        if not others:
            return first(x)
        if not all(conv.norm.use_running_average for conv in convs):
            return functools.reduce(jnp.add, [conv(x) for conv in convs])
        kernel, shift = 0.0, 0.0
        for conv in convs:
            gain, addend = conv.norm.affine()
            edge = (first.conv.kernel.shape[0] - conv.conv.kernel.shape[0]) // 2
            around = ((edge, edge), (edge, edge), (0, 0), (0, 0))
            kernel, shift = kernel + jnp.pad(conv.conv.kernel[...] * gain, around), shift + addend
        options = {"strides": first.conv.strides, "padding": first.conv.padding, "groups": first.conv.groups}
        return conv2d(x, jnp.asarray(kernel, x.dtype), **options) + jnp.asarray(shift, x.dtype)
