"""Layers of the network families.

Layers with parameters take `rngs`: a `NumpyRngs` for arrays, or a `ShapeRngs` for an abstract model. Images
are `(batch, height, width, channels)`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from transfer_jax.nn.add_bias import add_bias
from transfer_jax.nn.batch_norm import batch_norm
from transfer_jax.nn.batch_shard import sample_rows
from transfer_jax.nn.conv import conv2d
from transfer_jax.nn.initializers import constant, fan_in, fan_out, ones, zeros
from transfer_jax.nn.int8 import Int8Kernel, observe
from transfer_jax.nn.layer_norm import layer_norm
from transfer_jax.nn.layer_rngs import LayerRngs


class Linear(nnx.Linear):
    """A linear layer over the last axis: `(…, in_features)` to `(…, out_features)`.

    Args:
        in_features: Channels of the input.
        out_features: Channels of the output.
        use_bias: Whether to add a bias.
        rngs: Source of the initial parameters.
    """

    def __init__(self, in_features: int, out_features: int, *, use_bias: bool = True, rngs: nnx.Rngs) -> None:
        super().__init__(
            in_features, out_features, use_bias=use_bias, kernel_init=fan_in, bias_init=zeros, rngs=rngs
        )

    def __call__(self, x: jax.Array) -> jax.Array:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Returns the outputs, in the dtype of `x` if the kernel is in int8; see `nn.int8`."""
        y = self.product(x)
        return y if self.bias is None else add_bias(y, self.bias[...].astype(y.dtype))

    def product(self, x: jax.Array) -> jax.Array:
        """Returns the outputs without the bias."""
        kernel = self.kernel[...]
        if isinstance(kernel, Int8Kernel):
            return kernel.product(x)
        observe(self, x)
        return x @ kernel


class LayerNorm(nnx.LayerNorm):
    """Layer normalization over the last axis; see `nn.layer_norm`.

    Args:
        features: Channels.
        epsilon: Value added to the variance.
        rngs: Source of the initial parameters.
    """

    def __init__(self, features: int, *, epsilon: float = 1e-6, rngs: nnx.Rngs) -> None:
        super().__init__(features, epsilon=epsilon, scale_init=ones, bias_init=zeros, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:  # pyright: ignore[reportIncompatibleMethodOverride]
        assert self.scale is not None
        assert self.bias is not None
        return layer_norm(x, self.scale[...], self.bias[...], self.epsilon)


class RmsNorm(nnx.RMSNorm):
    """Normalization by the root mean square over the last axis (Zhang and Sennrich 2019, arXiv:1910.07467).

    Args:
        features: Channels.
        epsilon: Value added to the mean square.
        rngs: Source of the initial parameters.
    """

    def __init__(self, features: int, *, epsilon: float = 1e-6, rngs: nnx.Rngs) -> None:
        super().__init__(features, epsilon=epsilon, scale_init=ones, rngs=rngs)


class GroupNorm(nnx.GroupNorm):
    """Group normalization: over groups of channels and all pixels.

    Args:
        features: Channels.
        groups: Number of groups.
        epsilon: Value added to the variance.
        rngs: Source of the initial parameters.
    """

    def __init__(self, features: int, groups: int, *, epsilon: float, rngs: nnx.Rngs) -> None:
        # The fast variance doubles the rounding error of a deep network.
        options = {"epsilon": epsilon, "use_fast_variance": False, "rngs": rngs}
        super().__init__(features, groups, scale_init=ones, bias_init=zeros, **options)


class BatchNorm(nnx.BatchNorm):
    """Batch normalization per channel of `(batch, height, width, channels)`, with running statistics.

    Args:
        features: Channels.
        epsilon: Value added to the variance.
        momentum: Fraction of the old running statistics that a training step keeps.
        use_scale: Whether there is a scale per channel.
        rngs: Source of the initial parameters.
    """

    def __init__(
        self, features: int, *, epsilon: float, momentum: float, use_scale: bool = True, rngs: nnx.Rngs
    ) -> None:
        # This does not call NNX's constructor, which always allocates the statistics.
        self.mean = nnx.BatchStat(zeros(rngs.params(), (features,)))
        self.var = nnx.BatchStat(ones(rngs.params(), (features,)))
        self.scale = nnx.Param(ones(rngs.params(), (features,))) if use_scale else None
        self.bias = nnx.Param(zeros(rngs.params(), (features,)))
        self.epsilon = epsilon
        self.momentum = momentum
        self.use_running_average = False

    def __call__(self, x: jax.Array) -> jax.Array:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Normalizes `x` by the running statistics or, in training mode, by the batch's, and updates them.

        The normalization by running statistics is one factor and one addend per channel.
        """
        if self.use_running_average:
            gain, shift = self.affine()
            return (x * gain + shift).astype(x.dtype)
        assert self.bias is not None
        bias = self.bias[...]
        scale = jnp.ones_like(bias) if self.scale is None else self.scale[...]
        x, *statistics = batch_norm(x, scale, bias, epsilon=self.epsilon)
        for running, batch in zip((self.mean, self.var), statistics, strict=True):
            kept = self.momentum
            running[...] = kept * running[...] + (1 - kept) * jax.lax.stop_gradient(batch)
        return x

    def affine(self) -> tuple[jax.Array, jax.Array]:
        """Returns the factor and the addend per channel of running statistics, each `(channels,)`."""
        assert self.bias is not None
        gain, scale = jax.lax.rsqrt(self.var[...] + self.epsilon), self.scale
        if scale is not None:
            gain = scale[...] * gain
        return gain, self.bias[...] - self.mean[...] * gain


class Conv(nnx.Module):
    """A convolution of `(batch, height, width, in_features)`; see `conv2d`.

    Args:
        in_features: Channels of the input.
        out_features: Channels of the output.
        kernel_size: Side of the square kernel, or its height and width, in pixels.
        strides: Stride of the kernel, in pixels.
        padding: `SAME`, `VALID`, or the number of zeros on every side.
        groups: Number of channel groups; `in_features` groups make a depthwise convolution.
        use_bias: Whether to add a bias.
        rngs: Source of the initial parameters.
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
        if gain is not None and bias is not None:
            bias = bias * gain
        if isinstance(kernel, Int8Kernel):
            x = kernel.convolve(x, strides=self.strides, padding=self.padding, gain=gain)
        else:
            if self.groups == 1 and x.shape[1:3] != (1, 1):  # Layers on pooled features stay as they are.
                observe(self, x)
            kernel = (kernel if gain is None else kernel * gain).astype(x.dtype)
            x = conv2d(x, kernel, strides=self.strides, padding=self.padding, groups=self.groups)
        return x if bias is None else x + bias.astype(x.dtype)


class ConvNorm(nnx.Module):
    """A convolution, a batch normalization and an optional activation.

    Args:
        in_features: Channels of the input.
        out_features: Channels of the output.
        kernel_size: As for `Conv`.
        strides: Stride of the kernel, in pixels.
        padding: As for `Conv`.
        groups: Number of channel groups.
        use_bias: Whether the convolution has a bias.
        use_scale: Whether the normalization has a scale per channel.
        epsilon: Value added to the variance.
        momentum: Fraction of the old running statistics that a training step keeps.
        activation: Activation after the normalization; None for no activation.
        rngs: Source of the initial parameters.
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
            # The scale is folded into the kernel, which leaves one addition per pixel.
            gain, shift = self.norm.affine()
            x = self.conv(x, gain) + shift.astype(x.dtype)
        else:
            x = self.norm(self.conv(x))
        return x if self.activation is None else self.activation(x)


class NormAct(nnx.Module):
    """A batch normalization and an activation, which come before a convolution.

    Args:
        features: Channels.
        epsilon: Value added to the variance.
        momentum: Fraction of the old running statistics that a training step keeps.
        activation: Activation after the normalization.
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
    """Global average pooling: `(batch, height, width, channels)` to `(batch, channels)`."""

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        return x.mean(axis=(1, 2))


class FlattenPool(nnx.Module):
    """Average pooling to `size` x `size` bins, flattened to `(batch, size x size x channels)`.

    The bins are those of PyTorch's `AdaptiveAvgPool2d`. They overlap if the image's side is not a multiple of
    `size`.

    Args:
        size: Number of bins along height and along width.
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        rows, columns = (jnp.asarray(self._bins(length), x.dtype) for length in x.shape[1:3])
        x = jnp.einsum("nhwc,ih,jw->nijc", x, rows, columns)
        return x.reshape(x.shape[0], -1)

    def _bins(self, length: int) -> np.ndarray:
        """Returns the weight of each pixel in each bin, `(size, length)`."""
        weights = np.zeros((self.size, length), np.float32)
        for index in range(self.size):
            start, stop = index * length // self.size, -(-(index + 1) * length // self.size)
            weights[index, start:stop] = 1 / (stop - start)
        return weights


class Dropout(nnx.Dropout):
    """Dropout with a mask that depends on a row's index in the whole batch, not on the number of devices.

    Args:
        rate: Fraction of the values to drop.
        broadcast_dims: Axes along which all values are dropped together; not the first axis.
    """

    def __init__(self, rate: float, broadcast_dims: tuple[int, ...] = ()) -> None:
        super().__init__(rate, broadcast_dims=broadcast_dims)

    def __call__(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, x: jax.Array, rngs: nnx.Rngs | LayerRngs | None = None
    ) -> jax.Array:
        if self.deterministic or not self.rate:
            return x
        if rngs is None:
            raise ValueError("dropout in training mode needs rngs; pass rngs=nnx.Rngs(seed) or call eval()")
        shape = tuple(1 if axis in self.broadcast_dims else size for axis, size in enumerate(x.shape))
        stays = 1 - (rngs.rate if isinstance(rngs, LayerRngs) else self.rate)
        kept = sample_rows(rngs.dropout(), len(x), lambda key: jax.random.bernoulli(key, stays, shape[1:]))
        return jnp.where(kept, x / jnp.asarray(stays, x.dtype), 0).astype(x.dtype)


class DropPath(Dropout):
    """Stochastic depth, which drops a residual branch for some images (Huang et al. 2016, arXiv:1603.09382).

    Args:
        rate: Fraction of the images whose branch is dropped.
        ndim: Number of axes of the branch's output.
    """

    def __init__(self, rate: float, *, ndim: int = 4) -> None:
        super().__init__(rate, broadcast_dims=tuple(range(1, ndim)))


class LayerScale(nnx.Module):
    """A learned scale per channel of a residual branch (Touvron et al. 2021, arXiv:2103.17239).

    Args:
        features: Channels.
        initial: Initial value of the scale.
        rngs: Source of the initial parameters.
    """

    def __init__(self, features: int, initial: float, rngs: nnx.Rngs) -> None:
        self.gamma = nnx.Param(constant(initial)(rngs.params(), (features,)))

    def __call__(self, x: jax.Array) -> jax.Array:
        return x * self.gamma[...].astype(x.dtype)


class Identity(nnx.Module):
    """A layer that returns its input."""

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        return x
