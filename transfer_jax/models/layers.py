"""The layers that network families are written in."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from transfer_jax.models.conv import conv2d


class Conv(nnx.Module):
    """A convolution over `(batch, height, width, channels)`.

    Args:
        in_features: Channels of the input.
        out_features: Channels of the output.
        kernel_size: Side of the square kernel, in pixels.
        strides: Step of the kernel, in pixels.
        padding: `SAME`, `VALID`, or zeros on every side in pixels.
        groups: Number of channel groups; `in_features` makes it depthwise.
        use_bias: Whether to add a bias.
        rngs: Source of the initial kernel.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int = 1,
        *,
        strides: int = 1,
        padding: str | int = "SAME",
        groups: int = 1,
        use_bias: bool = False,
        rngs: nnx.Rngs,
    ) -> None:
        shape = (kernel_size, kernel_size, in_features // groups, out_features)
        init = nnx.initializers.variance_scaling(2.0, "fan_out", "truncated_normal")
        self.kernel = nnx.Param(init(rngs.params(), shape, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(out_features)) if use_bias else None
        self.strides = strides
        self.padding = padding if isinstance(padding, str) else ((padding, padding), (padding, padding))
        self.groups = groups

    def __call__(self, x: jax.Array, gain: jax.Array | None = None) -> jax.Array:
        """Convolves `x`, in its dtype; `gain` multiplies the output per channel."""
        kernel, bias = self.kernel[...], None if self.bias is None else self.bias[...]
        if gain is not None:
            kernel, bias = kernel * gain, None if bias is None else bias * gain
        x = conv2d(x, kernel.astype(x.dtype), strides=self.strides, padding=self.padding, groups=self.groups)
        return x if bias is None else x + bias.astype(x.dtype)


class ConvNorm(nnx.Module):
    """Convolution, batch normalization and, if given, an activation.

    Args:
        in_features: Channels of the input.
        out_features: Channels of the output.
        kernel_size: Side of the square kernel, in pixels.
        strides: Step of the kernel, in pixels.
        padding: As for `Conv`.
        groups: Number of channel groups.
        use_bias: Whether the convolution has a bias.
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
        padding: str | int = "SAME",
        groups: int = 1,
        use_bias: bool = False,
        epsilon: float = 1e-5,
        momentum: float = 0.99,
        activation: Callable[[jax.Array], jax.Array] | None = None,
        rngs: nnx.Rngs,
    ) -> None:
        self.conv = Conv(
            in_features,
            out_features,
            kernel_size,
            strides=strides,
            padding=padding,
            groups=groups,
            use_bias=use_bias,
            rngs=rngs,
        )
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


def max_pool(x: jax.Array, size: int, strides: int, padding: int = 0) -> jax.Array:
    """The maximum over windows of `size` x `size` pixels; the padding never wins."""
    around = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    return jax.lax.reduce_window(
        x, -jnp.inf, jax.lax.max, (1, size, size, 1), (1, strides, strides, 1), around
    )


class GlobalPool(nnx.Module):
    """The mean over height and width: `(batch, height, width, channels)` to `(batch, channels)`."""

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        return x.mean(axis=(1, 2))


class FlattenPool(nnx.Module):
    """Averages over a grid of `size` x `size` bins, and flattens it: height, width, channels.

    The bins are those of PyTorch's `AdaptiveAvgPool2d`: they overlap where the image is no multiple of the
    grid.
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        rows, columns = (jnp.asarray(self._bins(length), x.dtype) for length in x.shape[1:3])
        x = jnp.einsum("nhwc,ih,jw->nijc", x, rows, columns)
        return x.reshape(len(x), -1)

    def _bins(self, length: int) -> np.ndarray:
        """The weight of each pixel in each bin, `(size, length)`."""
        weights = np.zeros((self.size, length), np.float32)
        for index in range(self.size):
            start, stop = index * length // self.size, -(-(index + 1) * length // self.size)
            weights[index, start:stop] = 1 / (stop - start)
        return weights


class DropPath(nnx.Dropout):
    """Stochastic depth: drops a whole residual branch per image (Huang et al. 2016, arXiv:1603.09382).

    Args:
        rate: Share of the images whose branch is dropped.
        ndim: Axes of the branch.
    """

    def __init__(self, rate: float, *, ndim: int = 4) -> None:
        super().__init__(rate, broadcast_dims=tuple(range(1, ndim)))


class LayerScale(nnx.Module):
    """A learnt factor per channel on a residual branch (Touvron et al. 2021, arXiv:2103.17239).

    Args:
        features: Channels.
        initial: The factor in the beginning.
    """

    def __init__(self, features: int, initial: float) -> None:
        self.gamma = nnx.Param(jnp.full(features, initial))

    def __call__(self, x: jax.Array) -> jax.Array:
        return x * self.gamma[...].astype(x.dtype)


class Identity(nnx.Module):
    """Gives back what it is given."""

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        return x
