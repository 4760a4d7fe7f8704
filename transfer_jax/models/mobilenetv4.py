"""MobileNetV4: convolutional small, medium and large, and the hybrids with attention.

Source: Qin et al. 2024, arXiv:2404.10518. The names of networks are timm's: `…_050` has half the channels,
`…_aa_…` and `…_blur_…` filter the image in place of a stride. Blocks have timm's names, except for `top`.
"""

import dataclasses

import jax
from flax import nnx

from transfer_jax.models.backbone import PRE_LOGITS, Backbone
from transfer_jax.models.family import HALF, IMAGENET_MEAN, IMAGENET_STD, Family, Setting, Variant
from transfer_jax.models.mbconv import MBConv, Style, round_channels, timm_layer
from transfer_jax.models.preprocessing import Preprocessing
from transfer_jax.nn.activations import gelu
from transfer_jax.nn.layers import BatchNorm, Conv, ConvNorm, DropPath, Identity, LayerScale

_HIDDEN = 1280


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


@dataclasses.dataclass(frozen=True)
class Shape:
    """The sizes of a MobileNetV4.

    Attributes:
        stem: Number of channels of the stem.
        stages: Number of channels and blocks of each stage. The first block of a stage has stride 2.
        top: Number of channels of the last convolution before the pooling.
        scaled: Whether residual branches have a learned scale per channel.
        smooth: Whether the activation is GELU; otherwise ReLU.
        antialias: Filter in place of strides, as for `Style`.
    """

    stem: int
    stages: tuple[tuple[int, tuple[Block, ...]], ...]
    top: int = 960
    scaled: bool = False
    smooth: bool = False
    antialias: str = ""

    def block(self, name: str) -> Block:
        """Returns the block `blocks.0.0` …."""
        _, stage, repeat = name.split(".")
        return self.stages[int(stage)][1][int(repeat)]


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
        mixed = jax.nn.dot_product_attention(queries, keys, values)
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


def build(shape: Shape, setting: Setting) -> Backbone:
    """Builds the blocks `stem`, `blocks.0.0` …, `top`, `conv_head`, `pre_logits`.

    The backbone maps images `(batch, height, width, channels)` to features `(batch, 1280)`.
    """
    plain = Style(activation=gelu if shape.smooth else jax.nn.relu)
    style = dataclasses.replace(plain, antialias=shape.antialias)
    active, rngs, features, index = plain.activation, setting.rngs, shape.stem, 0
    total = sum(len(stage) for _, stage in shape.stages)
    blocks: dict[str, nnx.Module] = {
        "stem": plain.conv(setting.channels, features, 3, strides=2, activation=active, rngs=rngs)
    }
    for number, (channels, stage) in enumerate(shape.stages):
        for repeat, block in enumerate(stage):
            options = {"style": style, "drop_path": setting.drop_path * index / total, "rngs": rngs}
            strides, out = 1 if repeat else 2, channels
            match block:
                case Plain():
                    out = block.channels or channels
                    made = style.conv(
                        features, out, block.kernel_size, strides=strides, activation=active, rngs=rngs
                    )
                case Fused():
                    made = MBConv(
                        features, out, 3, strides, round_channels(4 * features), fused=True, **options
                    )
                case Inverted():
                    made = UniversalInverted(
                        block, features, out, strides=strides, scaled=shape.scaled, **options
                    )
                case Attention():
                    made = AttentionBlock(block, features, **options)
            blocks[f"blocks.{number}.{repeat}"] = made
            features, index = out, index + 1
    blocks["top"] = plain.conv(features, shape.top, activation=active, rngs=rngs)
    blocks["conv_head"] = PooledConvNorm(shape.top, _HIDDEN, activation=active, rngs=rngs)
    blocks[PRE_LOGITS] = Identity()
    return Backbone(blocks, _HIDDEN)


def _timm(shape: Shape, path: tuple[str, ...]) -> str | None:
    match path:
        case ("head", "classifier"):
            return "classifier"
        case ("backbone", "stem", layer):
            return "conv_stem" if layer == "conv" else "bn1"
        case ("backbone", "conv_head", layer):
            return "conv_head" if layer == "conv" else "norm_head"
        case ("backbone", block, "scale", "gamma"):
            return f"{block}.layer_scale.gamma"
        case ("backbone", block, "attn", part, *layers):
            name, _, down = part.partition("_")
            inside = ("down_conv" if layers == ["conv"] else "norm") if down else "proj"
            return f"{block}.attn.{name}.{inside}"
        case ("backbone", "top", layer):
            return f"blocks.{len(shape.stages)}.0.{'conv' if layer == 'conv' else 'bn1'}"
        case ("backbone", block, layer):
            known = "norm" if isinstance(shape.block(block), Attention) else "bn1"
            return f"{block}.{'conv' if layer == 'conv' else known}"
        case ("backbone", block, part, layer):
            if isinstance(shape.block(block), Fused):
                return f"{block}.{timm_layer(('fused', 'project'), part, layer)}"
            return f"{block}.{_PARTS[part]}.{'conv' if layer == 'conv' else 'bn'}"
    return None


_PARTS = {"start": "dw_start", "expand": "pw_exp", "middle": "dw_mid", "project": "pw_proj"}


def _small(width: float) -> Shape:
    def scaled(channels: int) -> int:
        return round_channels(channels * width)

    stages = (
        (scaled(32), (Plain(3), Plain(1))),
        (scaled(64), (Plain(3, scaled(96)), Plain(1))),
        (scaled(96), (Inverted(5, 5, 3), *(Inverted(0, 3, 2),) * 4, Inverted(3, 0, 4))),
        (
            scaled(128),
            (
                *(Inverted(3, 3, 6), Inverted(5, 5, 4), Inverted(0, 5, 4), Inverted(0, 5, 3)),
                *(Inverted(0, 3, 4),) * 2,
            ),
        ),
    )
    return Shape(32, stages, scaled(960))


_MEDIUM = (
    (48, (Fused(),)),
    (80, (Inverted(3, 5, 4), Inverted(3, 3, 2))),
    (
        160,
        (
            *(Inverted(3, 5, 6), Inverted(3, 3, 4), Inverted(3, 3, 4), Inverted(3, 5, 4), Inverted(3, 3, 4)),
            *(Inverted(3, 0, 4), Inverted(0, 0, 2), Inverted(3, 0, 4)),
        ),
    ),
    (
        256,
        (
            *(Inverted(5, 5, 6), Inverted(5, 5, 4), Inverted(3, 5, 4), Inverted(3, 5, 4), Inverted(0, 0, 4)),
            *(Inverted(3, 0, 4), Inverted(3, 5, 2), Inverted(5, 5, 4), Inverted(0, 0, 4), Inverted(0, 0, 4)),
            Inverted(5, 0, 2),
        ),
    ),
)
_LARGE_END = (
    *(Inverted(5, 5, 4),) * 4,
    *(Inverted(5, 0, 4), Inverted(5, 3, 4), Inverted(5, 0, 4), Inverted(5, 0, 4)),
    *(Inverted(5, 3, 4), Inverted(5, 5, 4)),
)
_LARGE_MIDDLE = (Inverted(3, 5, 4), *(Inverted(3, 3, 4),) * 3, Inverted(3, 5, 4))
_LARGE = (
    (48, (Fused(),)),
    (96, (Inverted(3, 5, 4), Inverted(3, 3, 4))),
    (192, (*_LARGE_MIDDLE, *(Inverted(5, 3, 4),) * 5, Inverted(3, 0, 4))),
    (512, (*_LARGE_END, *(Inverted(5, 0, 4),) * 3)),
)
_HYBRID_MEDIUM = (
    *_MEDIUM[:2],
    (
        160,
        (
            *(Inverted(3, 5, 6), Inverted(0, 0, 2), Inverted(3, 3, 4), Inverted(3, 5, 4)),
            *(Attention(4, 64, 2), Inverted(3, 3, 4), Attention(4, 64, 2), Inverted(3, 0, 4)) * 2,
        ),
    ),
    (
        256,
        (
            *(Inverted(5, 5, 6), Inverted(5, 5, 4), Inverted(3, 5, 4), Inverted(3, 5, 4), Inverted(0, 0, 2)),
            *(Inverted(3, 5, 2), Inverted(0, 0, 2), Inverted(0, 0, 4)),
            *(Attention(4, 64), Inverted(3, 0, 4), Attention(4, 64), Inverted(5, 5, 4)),
            *(Attention(4, 64), Inverted(5, 0, 4)) * 2,
        ),
    ),
)
_HYBRID_LARGE = (
    *_LARGE[:2],
    (
        192,
        (
            *(*_LARGE_MIDDLE, *(Inverted(5, 3, 4),) * 2),
            *(Attention(8, 48, 2), Inverted(5, 3, 4)) * 3,
            *(Attention(8, 48, 2), Inverted(3, 0, 4)),
        ),
    ),
    (512, (*_LARGE_END, *(Attention(8, 64), Inverted(5, 0, 4)) * 4)),
)


def _variant(shape: Shape, size: int, crop: float = 0.95, *, half: bool = False) -> Variant:
    expected = Preprocessing(
        image_size=size,
        crop_fraction=crop,
        mean=HALF if half else IMAGENET_MEAN,
        std=HALF if half else IMAGENET_STD,
    )
    return Variant(shape=shape, preprocessing=expected, dropout=0.2)


FAMILY = Family(
    name="mobilenetv4",
    variants={
        "mobilenetv4_conv_small": _variant(_small(1.0), 224, 0.875),
        "mobilenetv4_conv_small_050": _variant(_small(0.5), 224, 0.875, half=True),
        "mobilenetv4_conv_medium": _variant(Shape(32, _MEDIUM), 256),
        "mobilenetv4_conv_large": _variant(Shape(24, _LARGE), 384),
        "mobilenetv4_hybrid_medium": _variant(Shape(32, _HYBRID_MEDIUM, scaled=True), 256),
        "mobilenetv4_hybrid_large": _variant(Shape(24, _HYBRID_LARGE, scaled=True, smooth=True), 384),
        "mobilenetv4_conv_blur_medium": _variant(Shape(32, _MEDIUM, antialias="blur"), 224),
        "mobilenetv4_conv_aa_large": _variant(Shape(24, _LARGE, antialias="average"), 448),
    },
    build=build,
    layer_names={"timm": _timm},
)
