"""Layers of ConvNeXt.

Sources: Liu et al. 2022, arXiv:2201.03545; Woo et al. 2023, arXiv:2301.00808 (V2: a global response
normalization inside the perceptron instead of a learned scale after it).
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from transfer_jax.nn.activations import gelu
from transfer_jax.nn.initializers import ones, zeros
from transfer_jax.nn.layers import Conv, DropPath, LayerNorm, LayerScale, Linear


@dataclasses.dataclass(frozen=True)
class Shape:
    """The sizes of a ConvNeXt.

    Attributes:
        depths: Number of blocks of each stage.
        widths: Number of channels of each stage.
        v2: Whether it is a ConvNeXt V2.
        convolutional: Whether timm implements its perceptrons as convolutions.
        stem: `patches`; or, for two convolutions with stride 2, `overlap`, `tiered` (the first one has half
            the channels) or `active` (a GELU is between them).
        simple: Whether normalizations only divide by the standard deviation, as timm's `SimpleNorm`.
        epsilon: Value added to the variance by normalizations.
        hidden: Number of channels of a hidden layer after the pooling; 0 for no layer.
        keras: Name of the network in Keras; empty if Keras lacks it.
    """

    depths: tuple[int, int, int, int]
    widths: tuple[int, int, int, int]
    v2: bool = False
    convolutional: bool = False
    stem: str = "patches"
    simple: bool = False
    epsilon: float = 1e-6
    hidden: int = 0
    keras: str = ""

    def norm(self, width: int, rngs: nnx.Rngs) -> "LayerNorm | SimpleNorm":
        """Returns a normalization over channels."""
        return (SimpleNorm if self.simple else LayerNorm)(width, epsilon=self.epsilon, rngs=rngs)


class SimpleNorm(nnx.Module):
    """A division by the standard deviation over channels, and a scale per channel.

    Args:
        width: Channels.
        epsilon: Value added to the variance, whose divisor is `width - 1`.
        rngs: Source of the initial parameters.
    """

    def __init__(self, width: int, *, epsilon: float, rngs: nnx.Rngs) -> None:
        self.scale = nnx.Param(ones(rngs.params(), (width,)))
        self.epsilon = epsilon

    def __call__(self, x: jax.Array) -> jax.Array:
        exact = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        width = x.shape[-1]
        variance = exact.var(axis=-1, keepdims=True) * (width / (width - 1))
        return (exact * jax.lax.rsqrt(variance + self.epsilon) * self.scale[...]).astype(x.dtype)


class Stem(nnx.Module):
    """Normalized 4x4 patches of images: `(batch, height, …, channels)` to `(batch, height / 4, …, width)`."""

    def __init__(self, channels: int, shape: Shape, rngs: nnx.Rngs) -> None:
        width = shape.widths[0]
        self.conv = Conv(channels, width, 4, strides=4, padding="VALID", use_bias=True, rngs=rngs)
        self.norm = shape.norm(width, rngs)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        return self.norm(self.conv(x))


class OverlapStem(nnx.Module):
    """Two 3x3 convolutions with stride 2 and a normalization; it has the shapes of `Stem`."""

    def __init__(self, channels: int, shape: Shape, rngs: nnx.Rngs) -> None:
        width = shape.widths[0]
        first = max(8, (width // 2 + 4) // 8 * 8) if shape.stem == "tiered" else width
        self.conv1 = Conv(channels, first, 3, strides=2, padding=1, use_bias=True, rngs=rngs)
        self.conv2 = Conv(first, width, 3, strides=2, padding=1, use_bias=True, rngs=rngs)
        self.norm = shape.norm(width, rngs)
        self.active = shape.stem == "active"

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        x = self.conv1(x)
        return self.norm(self.conv2(gelu(x) if self.active else x))


class Downsample(nnx.Module):
    """A downsampling of `(batch, height, width, in_features)` to `(batch, height / 2, width / 2, width)`."""

    def __init__(self, in_features: int, width: int, shape: Shape, rngs: nnx.Rngs) -> None:
        self.norm = shape.norm(in_features, rngs)
        self.conv = Conv(in_features, width, 2, strides=2, padding="VALID", use_bias=True, rngs=rngs)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        return self.conv(self.norm(x))


class ResponseNorm(nnx.Module):
    """Global response normalization of `(batch, height, width, channels)`.

    Each channel is scaled by its norm over the image, divided by the mean norm of all channels.
    """

    def __init__(self, width: int, rngs: nnx.Rngs) -> None:
        self.scale = nnx.Param(zeros(rngs.params(), (width,)))
        self.bias = nnx.Param(zeros(rngs.params(), (width,)))

    def __call__(self, x: jax.Array) -> jax.Array:
        norm = jnp.linalg.norm(x.astype(jnp.float32), axis=(1, 2), keepdims=True)
        response = (norm / (norm.mean(axis=-1, keepdims=True) + 1e-6)).astype(x.dtype)
        return x + x * response * self.scale[...].astype(x.dtype) + self.bias[...].astype(x.dtype)


class ConvNeXtBlock(nnx.Module):
    """A residual block of a depthwise 7x7 convolution, a normalization and a two-layer perceptron.

    It maps `(batch, height, width, channels)` to the same shape.
    """

    def __init__(self, width: int, shape: Shape, drop_path: float, rngs: nnx.Rngs) -> None:
        self.conv = Conv(width, width, 7, padding=3, groups=width, use_bias=True, rngs=rngs)
        self.norm = shape.norm(width, rngs)
        self.fc1 = Linear(width, 4 * width, rngs=rngs)
        self.fc2 = Linear(4 * width, width, rngs=rngs)
        if shape.v2:
            self.grn = ResponseNorm(4 * width, rngs)
        else:
            self.scale = LayerScale(width, 1e-6, rngs)
        self.v2 = shape.v2
        self.drop_path = DropPath(drop_path)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        y = gelu(self.fc1(self.norm(self.conv(x))))
        y = self.fc2(self.grn(y)) if self.v2 else self.scale(self.fc2(y))
        return x + self.drop_path(y, rngs=rngs)


class PooledNorm(nnx.Module):
    """Normalized global average pooling: `(batch, height, width, channels)` to `(batch, channels)`."""

    def __init__(self, width: int, shape: Shape, rngs: nnx.Rngs) -> None:
        self.norm = shape.norm(width, rngs)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        return self.norm(x.mean(axis=(1, 2)))


class Hidden(nnx.Module):
    """A dense layer and a GELU: `(batch, in_features)` to `(batch, features)`."""

    def __init__(self, in_features: int, features: int, rngs: nnx.Rngs) -> None:
        self.fc = Linear(in_features, features, rngs=rngs)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        return gelu(self.fc(x))
