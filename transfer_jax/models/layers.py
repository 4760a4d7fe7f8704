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
        if self.norm.use_running_average:
            # Folded into the kernel, the normalization is one addition per pixel.
            gain, shift = self._affine(self.norm.mean[...], self.norm.var[...])
            x = self.conv(x, gain) + shift.astype(x.dtype)
        else:
            x = self.conv(x)
            gain, shift = self._affine(*self._batch_statistics(x))
            x = (x * gain + shift).astype(x.dtype)
        return x if self.activation is None else self.activation(x)

    def _affine(self, mean: jax.Array, var: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Normalization as a factor and an addend per channel: its gradient takes two sums over pixels."""
        scale, bias = self.norm.scale, self.norm.bias
        assert scale is not None
        assert bias is not None
        gain = scale[...] * jax.lax.rsqrt(var + self.norm.epsilon)
        return gain, bias[...] - mean * gain

    def _batch_statistics(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Mean and variance per channel of the batch, which the running statistics take up."""
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        mean = x.mean(axis=(0, 1, 2))
        var = jnp.maximum((x * x).mean(axis=(0, 1, 2)) - mean * mean, 0.0)
        for running, batch in ((self.norm.mean, mean), (self.norm.var, var)):
            kept = self.norm.momentum
            running[...] = kept * running[...] + (1 - kept) * jax.lax.stop_gradient(batch)
        return mean, var


class GlobalPool(nnx.Module):
    """The mean over height and width: `(batch, height, width, channels)` to `(batch, channels)`."""

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        return x.mean(axis=(1, 2))


class DropPath(nnx.Dropout):
    """Stochastic depth: drops a whole residual branch per image (Huang et al. 2016, arXiv:1603.09382)."""

    def __init__(self, rate: float) -> None:
        super().__init__(rate, broadcast_dims=(1, 2, 3))
