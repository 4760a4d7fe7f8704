"""Blocks of MobileNetV4.

Sources: Qin et al. 2024, arXiv:2404.10518; Shazeer 2019, arXiv:1911.02150 (one key and one value for all
heads).
"""

import dataclasses

import jax
from flax import nnx

from transfer_jax.models.mbconv import Style, round_channels
from transfer_jax.nn.attention import attend
from transfer_jax.nn.layers import BatchNorm, Conv, ConvNorm, DropPath, LayerScale


@dataclasses.dataclass(frozen=True)
class Plain:
    """A convolution, a normalization and an activation.

    Attributes:
        kernel_size: Side of the kernel, in pixels.
        channels: Number of output channels; 0 for those of the stage.
    """

    kernel_size: int
    channels: int = 0


@dataclasses.dataclass(frozen=True)
class Fused:
    """A fused inverted residual block with a 3x3 kernel and four times the channels inside; see `MBConv`."""


@dataclasses.dataclass(frozen=True)
class Inverted:
    """A universal inverted residual block.

    Attributes:
        start: Side of the depthwise kernel before the expansion, in pixels; 0 for no convolution.
        middle: Side of the depthwise kernel after the expansion, in pixels; 0 for no convolution.
        expansion: Factor from the input channels to the inner channels.
    """

    start: int
    middle: int
    expansion: int


@dataclasses.dataclass(frozen=True)
class Attention:
    """A residual attention with one key and one value for all heads.

    Attributes:
        heads: Number of heads.
        width: Number of channels of a head.
        strides: Stride of the keys and values, in pixels.
    """

    heads: int
    width: int
    strides: int = 1


Block = Plain | Fused | Inverted | Attention


class UniversalInverted(nnx.Module):
    """An inverted residual block with two optional depthwise convolutions, before and after the expansion.

    It maps `(batch, height, width, in_features)` to `(batch, height / strides, width / strides,
    out_features)`. The input is added to the output if their shapes are equal.
    """

    def __init__(
        self,
        sizes: Inverted,
        in_features: int,
        out_features: int,
        *,
        strides: int,
        scaled: bool,
        style: Style,
        drop_path: float,
        rngs: nnx.Rngs,
    ) -> None:
        wide, active = round_channels(in_features * sizes.expansion), style.activation
        start_strides = 1 if sizes.middle else strides
        layers = {}
        if sizes.start:
            layers["start"] = style.conv(
                in_features, in_features, sizes.start, strides=start_strides, groups=in_features, rngs=rngs
            )
        layers["expand"] = style.conv(in_features, wide, activation=active, rngs=rngs)
        if sizes.middle:
            layers["middle"] = style.conv(
                wide, wide, sizes.middle, strides=strides, groups=wide, activation=active, rngs=rngs
            )
        layers["project"] = style.conv(wide, out_features, rngs=rngs)
        if scaled:
            layers["scale"] = LayerScale(out_features, 1e-5, rngs)
        for name, layer in layers.items():
            setattr(self, name, layer)
        self.layers = tuple(layers)
        self.residual = strides == 1 and in_features == out_features
        self.drop_path = DropPath(drop_path)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        y = x
        for layer in self.layers:
            y = getattr(self, layer)(y)
        return x + self.drop_path(y, rngs=rngs) if self.residual else y


class MultiQueryAttention(nnx.Module):
    """Attention over pixels with one key and one value for all heads (Shazeer 2019, arXiv:1911.02150).

    It keeps the shape `(batch, height, width, features)`. With a stride, keys and values come from a
    depthwise convolution each.
    """

    def __init__(self, sizes: Attention, features: int, style: Style, rngs: nnx.Rngs) -> None:
        self.query = Conv(features, sizes.heads * sizes.width, rngs=rngs)
        for name in ("key", "value"):
            if sizes.strides > 1:
                options = {"strides": sizes.strides, "groups": features, "rngs": rngs}
                setattr(self, f"{name}_down", style.conv(features, features, 3, **options))
            setattr(self, name, Conv(features, sizes.width, rngs=rngs))
        self.output = Conv(sizes.heads * sizes.width, features, rngs=rngs)
        self.sizes = sizes

    def __call__(self, x: jax.Array) -> jax.Array:
        batch, height, width, _ = x.shape
        queries = self.query(x).reshape(batch, height * width, self.sizes.heads, self.sizes.width)
        keys, values = (
            self._tokens(x, name).reshape(batch, -1, 1, self.sizes.width) for name in ("key", "value")
        )
        mixed = attend(queries, keys, values)
        return self.output(mixed.reshape(batch, height, width, -1))

    def _tokens(self, x: jax.Array, name: str) -> jax.Array:
        """Returns the keys or the values, `(batch, height / strides, width / strides, width of a head)`."""
        return getattr(self, name)(getattr(self, f"{name}_down")(x) if self.sizes.strides > 1 else x)


class AttentionBlock(nnx.Module):
    """A residual attention after a normalization; it keeps the shape `(batch, height, width, features)`."""

    def __init__(
        self, sizes: Attention, features: int, style: Style, drop_path: float, rngs: nnx.Rngs
    ) -> None:
        self.norm = BatchNorm(features, epsilon=style.epsilon, momentum=0.99, rngs=rngs)
        self.attn = MultiQueryAttention(sizes, features, style, rngs)
        self.scale = LayerScale(features, 1e-5, rngs)
        self.drop_path = DropPath(drop_path)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        return x + self.drop_path(self.scale(self.attn(self.norm(x))), rngs=rngs)


class PooledConvNorm(ConvNorm):
    """Global pooling and a 1x1 convolution with normalization and activation.

    It maps `(batch, height, width, in_features)` to `(batch, out_features)`.
    """

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        return super().__call__(x.mean(axis=(1, 2), keepdims=True))[:, 0, 0]
