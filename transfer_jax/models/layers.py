"""The layers that network families are written in."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from transfer_jax.models.conv import conv2d


class Conv(nnx.Module):
    """A convolution over `(batch, height, width, channels)` without bias.

    Args:
        in_features: Channels of the input.
        out_features: Channels of the output.
        kernel_size: Side of the square kernel, in pixels.
        strides: Step of the kernel, in pixels.
        groups: Number of channel groups; `in_features` makes it depthwise.
        rngs: Source of the initial kernel.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int = 1,
        *,
        strides: int = 1,
        groups: int = 1,
        rngs: nnx.Rngs,
    ) -> None:
        shape = (kernel_size, kernel_size, in_features // groups, out_features)
        init = nnx.initializers.variance_scaling(2.0, "fan_out", "truncated_normal")
        self.kernel = nnx.Param(init(rngs.params(), shape, jnp.float32))
        self.strides = strides
        self.groups = groups

    def __call__(self, x: jax.Array, gain: jax.Array | None = None) -> jax.Array:
        """Convolves `x`, in its dtype; `gain` multiplies the kernel per output channel."""
        kernel = self.kernel[...] if gain is None else self.kernel[...] * gain
        return conv2d(x, kernel.astype(x.dtype), strides=self.strides, groups=self.groups)


class ConvNorm(nnx.Module):
    """Convolution, batch normalization and, if given, an activation.

    Args:
        in_features: Channels of the input.
        out_features: Channels of the output.
        kernel_size: Side of the square kernel, in pixels.
        strides: Step of the kernel, in pixels.
        groups: Number of channel groups.
        epsilon: Added to the variance.
        momentum: Share of the old running statistics that a training step keeps.
        activation: Applied last; None leaves the output linear.
        rngs: Source of the initial kernel.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int = 1,
        *,
        strides: int = 1,
        groups: int = 1,
        epsilon: float = 1e-5,
        momentum: float = 0.99,
        activation: Callable[[jax.Array], jax.Array] | None = None,
        rngs: nnx.Rngs,
    ) -> None:
        self.conv = Conv(in_features, out_features, kernel_size, strides=strides, groups=groups, rngs=rngs)
        self.norm = nnx.BatchNorm(out_features, epsilon=epsilon, momentum=momentum, rngs=rngs)
        self.activation = activation

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        norm = self.norm
        if norm.use_running_average:
            # Folded into the convolution, the normalization is one addition per pixel.
            gain = norm.scale[...] * jax.lax.rsqrt(norm.var[...] + norm.epsilon)
            x = self.conv(x, gain) + (norm.bias[...] - norm.mean[...] * gain).astype(x.dtype)
        else:
            x = norm(self.conv(x)).astype(x.dtype)
        return x if self.activation is None else self.activation(x)


class GlobalPool(nnx.Module):
    """The mean over height and width: `(batch, height, width, channels)` to `(batch, channels)`."""

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        return x.mean(axis=(1, 2))


class DropPath(nnx.Dropout):
    """Stochastic depth: drops a whole residual branch per image (Huang et al. 2016, arXiv:1603.09382)."""

    def __init__(self, rate: float) -> None:
        super().__init__(rate, broadcast_dims=(1, 2, 3))
