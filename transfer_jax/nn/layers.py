"""The layers that network families are written in."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from transfer_jax.nn.batch_shard import batch_mean, sample_rows
from transfer_jax.nn.conv import conv2d
from transfer_jax.nn.initializers import constant, fan_in, fan_out, ones, zeros


class Linear(nnx.Linear):
    """A linear map of the last axis.

    Args:
        in_features: Channels of the input.
        out_features: Channels of the output.
        use_bias: Whether to add a bias.
        rngs: Source of the initial kernel.
    """

    def __init__(self, in_features: int, out_features: int, *, use_bias: bool = True, rngs: nnx.Rngs) -> None:
        super().__init__(
            in_features, out_features, use_bias=use_bias, kernel_init=fan_in, bias_init=zeros, rngs=rngs
        )


class LayerNorm(nnx.LayerNorm):
    """Normalization over the last axis.

    Args:
        features: Channels.
        epsilon: Added to the variance.
        rngs: Says whether the model is abstract.
    """

    def __init__(self, features: int, *, epsilon: float = 1e-6, rngs: nnx.Rngs) -> None:
        super().__init__(features, epsilon=epsilon, scale_init=ones, bias_init=zeros, rngs=rngs)


class GroupNorm(nnx.GroupNorm):
    """Normalization over groups of channels.

    Args:
        features: Channels.
        groups: Number of groups.
        epsilon: Added to the variance.
        rngs: Says whether the model is abstract.
    """

    def __init__(self, features: int, groups: int, *, epsilon: float, rngs: nnx.Rngs) -> None:
        # The fast variance doubles the rounding error of a deep network.
        options = {"epsilon": epsilon, "use_fast_variance": False, "rngs": rngs}
        super().__init__(features, groups, scale_init=ones, bias_init=zeros, **options)


class BatchNorm(nnx.BatchNorm):
    """Normalization per channel, with running statistics.

    Args:
        features: Channels.
        epsilon: Added to the variance.
        momentum: Share of the old running statistics that a training step keeps.
        use_scale: Whether channels are scaled behind it.
        rngs: Says whether the model is abstract.
    """

    def __init__(
        self, features: int, *, epsilon: float, momentum: float, use_scale: bool = True, rngs: nnx.Rngs
    ) -> None:
        # Not NNX's: that one always allocates the statistics.
        self.mean = nnx.BatchStat(zeros(rngs.params(), (features,)))
        self.var = nnx.BatchStat(ones(rngs.params(), (features,)))
        self.scale = nnx.Param(ones(rngs.params(), (features,))) if use_scale else None
        self.bias = nnx.Param(zeros(rngs.params(), (features,)))
        self.epsilon = epsilon
        self.momentum = momentum
        self.use_running_average = False

    def __call__(self, x: jax.Array) -> jax.Array:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Normalizes by the running statistics, or by those of the batch, which they take up.

        It is a factor and an addend per channel: the gradient takes two sums over pixels.
        """
        gain, shift = self.affine() if self.use_running_average else self.affine(*self._statistics(x))
        return (x * gain + shift).astype(x.dtype)

    def affine(
        self, mean: jax.Array | None = None, var: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """The factor and the addend per channel, with the running statistics unless others are given."""
        mean = self.mean[...] if mean is None else mean
        var = self.var[...] if var is None else var
        assert self.bias is not None
        gain, scale = jax.lax.rsqrt(var + self.epsilon), self.scale
        if scale is not None:
            gain = scale[...] * gain
        return gain, self.bias[...] - mean * gain

    def _statistics(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Mean and variance per channel of the batch, which the running statistics take up."""
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        mean = batch_mean(x)
        var = jnp.maximum(batch_mean(x * x) - mean * mean, 0.0)
        for running, batch in ((self.mean, mean), (self.var, var)):
            kept = self.momentum
            running[...] = kept * running[...] + (1 - kept) * jax.lax.stop_gradient(batch)
        return mean, var


class Conv(nnx.Module):
    """A convolution over `(batch, height, width, channels)`.

    Args:
        in_features: Channels of the input.
        out_features: Channels of the output.
        kernel_size: Side of the square kernel, or its height and width, in pixels.
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
        kernel_size: int | tuple[int, int] = 1,
        *,
        strides: int = 1,
        padding: str | int = "SAME",
        groups: int = 1,
        use_bias: bool = False,
        rngs: nnx.Rngs,
    ) -> None:
        sides = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
        shape = (*sides, in_features // groups, out_features)
        self.kernel = nnx.Param(fan_out(rngs.params(), shape))
        self.bias = nnx.Param(zeros(rngs.params(), (out_features,))) if use_bias else None
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
        kernel_size: As for `Conv`.
        strides: Step of the kernel, in pixels.
        padding: As for `Conv`.
        groups: Number of channel groups.
        use_bias: Whether the convolution has a bias.
        use_scale: Whether the normalization has a factor per channel.
        epsilon: Added to the variance.
        momentum: Share of the old running statistics that a training step keeps.
        activation: Applied last; None leaves the output linear.
        rngs: Source of the initial kernel.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int | tuple[int, int] = 1,
        *,
        strides: int = 1,
        padding: str | int = "SAME",
        groups: int = 1,
        use_bias: bool = False,
        use_scale: bool = True,
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
        self.norm = BatchNorm(
            out_features, epsilon=epsilon, momentum=momentum, use_scale=use_scale, rngs=rngs
        )
        self.activation = activation

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        if self.norm.use_running_average:
            # Folded into the kernel, the normalization is one addition per pixel.
            gain, shift = self.norm.affine()
            x = self.conv(x, gain) + shift.astype(x.dtype)
        else:
            x = self.norm(self.conv(x))
        return x if self.activation is None else self.activation(x)


class NormAct(nnx.Module):
    """Batch normalization and an activation, ahead of a convolution.

    Args:
        features: Channels.
        epsilon: Added to the variance.
        momentum: Share of the old running statistics that a training step keeps.
        activation: Applied last.
        rngs: Source of the initial parameters.
    """

    def __init__(
        self,
        features: int,
        *,
        epsilon: float = 1e-5,
        momentum: float = 0.99,
        activation: Callable[[jax.Array], jax.Array] = jax.nn.relu,
        rngs: nnx.Rngs,
    ) -> None:
        self.norm = BatchNorm(features, epsilon=epsilon, momentum=momentum, rngs=rngs)
        self.activation = activation

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        return self.activation(self.norm(x))


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
        return x.reshape(x.shape[0], -1)

    def _bins(self, length: int) -> np.ndarray:
        """The weight of each pixel in each bin, `(size, length)`."""
        weights = np.zeros((self.size, length), np.float32)
        for index in range(self.size):
            start, stop = index * length // self.size, -(-(index + 1) * length // self.size)
            weights[index, start:stop] = 1 / (stop - start)
        return weights


class Dropout(nnx.Dropout):
    """Dropout whose mask depends on a row's place in the batch, not on the devices that share the batch.

    Args:
        rate: Share that is dropped.
        broadcast_dims: Axes along which all or nothing is dropped; not the first.
    """

    def __init__(self, rate: float, broadcast_dims: tuple[int, ...] = ()) -> None:
        super().__init__(rate, broadcast_dims=broadcast_dims)

    def __call__(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, x: jax.Array, rngs: nnx.Rngs | None = None
    ) -> jax.Array:
        if self.deterministic or not self.rate:
            return x
        if rngs is None:
            raise ValueError("dropout in training mode needs rngs")
        shape = tuple(1 if axis in self.broadcast_dims else size for axis, size in enumerate(x.shape))
        stays = 1 - self.rate
        kept = sample_rows(rngs.dropout(), len(x), lambda key: jax.random.bernoulli(key, stays, shape[1:]))
        return jnp.where(kept, x / stays, 0).astype(x.dtype)


class DropPath(Dropout):
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
        rngs: Says whether the model is abstract.
    """

    def __init__(self, features: int, initial: float, rngs: nnx.Rngs) -> None:
        self.gamma = nnx.Param(constant(initial)(rngs.params(), (features,)))

    def __call__(self, x: jax.Array) -> jax.Array:
        return x * self.gamma[...].astype(x.dtype)


class Identity(nnx.Module):
    """Gives back what it is given."""

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        return x
