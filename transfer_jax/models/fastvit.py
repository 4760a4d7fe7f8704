"""FastViT and the image encoders of MobileCLIP (`fastvit_mci*`), with the names of timm.

Sources: Vasu et al. 2023, arXiv:2303.14189; Vasu et al. 2023, arXiv:2311.17049, and Faghri et al. 2025,
arXiv:2508.20691 (MobileCLIP). Stages of depthwise convolutions come first; the last ones may have attention.
"""

import dataclasses
from collections.abc import Sequence

import jax
from flax import nnx

from transfer_jax.models.backbone import PRE_LOGITS, Backbone
from transfer_jax.models.channel_attention import squeezed_channels
from transfer_jax.models.family import IMAGENET_MEAN, IMAGENET_STD, Family, LibraryLayer, Setting, Variant
from transfer_jax.models.mbconv import SqueezeExcite, Style
from transfer_jax.models.parallel_convs import ParallelConvs
from transfer_jax.models.preprocessing import Preprocessing
from transfer_jax.nn.activations import gelu
from transfer_jax.nn.attention import attend_packed
from transfer_jax.nn.layers import (
    BatchNorm,
    Conv,
    ConvNorm,
    DropPath,
    GlobalPool,
    LayerNorm,
    LayerScale,
    Linear,
)

_HEAD_WIDTH = 32
_STYLE = Style(activation=gelu, squeeze=jax.nn.relu)


@dataclasses.dataclass(frozen=True)
class Shape:
    """The sizes of a FastViT.

    Attributes:
        depths: Number of blocks of each stage.
        width: Number of channels of the first stage. Each other stage has twice those of the one before.
        expansion: Factor from the channels of a block to those inside its perceptron.
        attention: Number of stages at the end that have attention.
        squeezes: Whether the last two downsamplings have squeeze-and-excitation.
        active: Whether a GELU comes after the first convolution of downsamplings.
        layer_norm: Whether attention is normalized over channels; otherwise over the batch.
        branched_stem: Whether the stem's 3x3 convolutions have a parallel 1x1 convolution.
    """

    depths: tuple[int, ...]
    width: int = 64
    expansion: int = 4
    attention: int = 1
    squeezes: bool = False
    active: bool = False
    layer_norm: bool = False
    branched_stem: bool = True

    def channels(self, stage: int) -> int:
        """Returns the number of channels of a stage."""
        return self.width * 2**stage

    def attends(self, stage: int) -> bool:
        """Returns whether a stage has attention."""
        return stage >= len(self.depths) - self.attention


class One(nnx.Module):
    """Parallel convolutions, optional squeeze-and-excitation, and a GELU (a block of MobileOne).

    It maps `(batch, height, width, in_features)` to `(batch, height / strides, width / strides, features)`.
    """

    def __init__(
        self,
        in_features: int,
        features: int,
        sizes: tuple[int, ...],
        *,
        strides: int = 1,
        groups: int = 1,
        squeezed: int = 0,
        rngs: nnx.Rngs,
    ) -> None:
        identity = strides == 1 and in_features == features
        self.convs = ParallelConvs(
            in_features, features, sizes, strides=strides, groups=groups, identity=identity, rngs=rngs
        )
        self.se = SqueezeExcite(features, squeezed, _STYLE, rngs) if squeezed else None

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        x = self.convs(x)
        return gelu(x if self.se is None else self.se(x))


class Stem(nnx.Module):
    """Three convolutions: `(batch, height, width, channels)` to `(batch, height / 4, width / 4, width)`."""

    def __init__(self, channels: int, shape: Shape, rngs: nnx.Rngs) -> None:
        width, sizes = shape.width, (3, 1) if shape.branched_stem else (3,)
        self.one0 = One(channels, width, sizes, strides=2, rngs=rngs)
        self.one1 = One(width, width, sizes, strides=2, groups=width, rngs=rngs)
        self.one2 = One(width, width, (1,), rngs=rngs)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        return self.one2(self.one1(self.one0(x)))


class Downsample(nnx.Module):
    """A large kernel with stride 2 and a 1x1 convolution.

    It maps `(batch, height, width, in_features)` to `(batch, height / 2, width / 2, features)`.
    """

    def __init__(
        self, in_features: int, features: int, *, squeezes: bool, active: bool, rngs: nnx.Rngs
    ) -> None:
        self.convs = ParallelConvs(in_features, features, (7, 3), strides=2, groups=in_features, rngs=rngs)
        squeezed = squeezed_channels(features, 0.25)
        self.se = SqueezeExcite(features, squeezed, _STYLE, rngs) if squeezes else None
        self.active = active
        self.one = One(features, features, (1,), rngs=rngs)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        x = self.convs(x)
        x = x if self.se is None else self.se(x)
        return self.one(gelu(x) if self.active else x)


class Position(nnx.Module):
    """A residual depthwise 7x7 convolution, which encodes positions; it keeps the shape."""

    def __init__(self, features: int, rngs: nnx.Rngs) -> None:
        self.conv = Conv(features, features, 7, padding=3, groups=features, use_bias=True, rngs=rngs)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        return x + self.conv(x)


class RepMixer(nnx.Module):
    """A residual depthwise 3x3 convolution; it keeps the shape `(batch, height, width, features)`."""

    def __init__(self, features: int, rngs: nnx.Rngs) -> None:
        options = {"groups": features, "identity": True, "rngs": rngs}
        self.input = ParallelConvs(features, features, (), **options)
        self.convs = ParallelConvs(features, features, (3, 1), **options)
        self.scale = LayerScale(features, 1e-5, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return x + self.scale(self.convs(x) - self.input(x))


class Attention(nnx.Module):
    """Multi-head attention over pixels; it keeps the shape `(batch, height, width, features)`."""

    def __init__(self, features: int, rngs: nnx.Rngs) -> None:
        self.qkv = Linear(features, 3 * features, use_bias=False, rngs=rngs)
        self.proj = Linear(features, features, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        batch, height, width, features = x.shape
        qkv = self.qkv(x).reshape(batch, height * width, 3 * features)
        mixed = attend_packed(qkv, features // _HEAD_WIDTH)
        return self.proj(mixed.reshape(x.shape))


class Block(nnx.Module):
    """A mixing of pixels by a convolution or by attention, and a residual perceptron; it keeps the shape."""

    def __init__(
        self, features: int, shape: Shape, *, attends: bool, drop_path: float, rngs: nnx.Rngs
    ) -> None:
        self.attends = attends
        if attends:
            if shape.layer_norm:
                self.norm = LayerNorm(features, epsilon=1e-5, rngs=rngs)
            else:
                self.norm = BatchNorm(features, epsilon=1e-5, momentum=0.9, rngs=rngs)
            self.scale1 = LayerScale(features, 1e-5, rngs)
        self.mixer = Attention(features, rngs) if attends else RepMixer(features, rngs)
        self.conv = ConvNorm(features, features, 7, padding=3, groups=features, momentum=0.9, rngs=rngs)
        self.fc1 = Conv(features, shape.expansion * features, use_bias=True, rngs=rngs)
        self.fc2 = Conv(shape.expansion * features, features, use_bias=True, rngs=rngs)
        self.scale2 = LayerScale(features, 1e-5, rngs)
        self.drop_path = DropPath(drop_path)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        if self.attends:
            x = x + self.drop_path(self.scale1(self.mixer(self.norm(x))), rngs=rngs)
        else:
            x = self.mixer(x)
        y = self.scale2(self.fc2(gelu(self.fc1(self.conv(x)))))
        return x + self.drop_path(y, rngs=rngs)


def build(shape: Shape, setting: Setting) -> Backbone:
    """Builds the blocks `stem`, `stages.0.blocks.0` …, `stages.1.downsample` …, `final_conv`, `pre_logits`.

    A stage with attention also has `stages.3.pos_emb`. The backbone maps images `(batch, height, width,
    channels)` to features `(batch, 2 x channels of the last stage)`.
    """
    rngs, index, count = setting.rngs, 0, len(shape.depths)
    blocks: dict[str, nnx.Module] = {"stem": Stem(setting.channels, shape, rngs)}
    for stage, depth in enumerate(shape.depths):
        width, attends = shape.channels(stage), shape.attends(stage)
        if stage:
            blocks[f"stages.{stage}.downsample"] = Downsample(
                shape.channels(stage - 1),
                width,
                squeezes=shape.squeezes and stage >= 2,
                active=shape.active,
                rngs=rngs,
            )
        if attends:
            blocks[f"stages.{stage}.pos_emb"] = Position(width, rngs)
        for repeat in range(depth):
            rate = setting.drop_path * index / (sum(shape.depths) - 1)
            blocks[f"stages.{stage}.blocks.{repeat}"] = Block(
                width, shape, attends=attends, drop_path=rate, rngs=rngs
            )
            index += 1
    last = shape.channels(count - 1)
    blocks["final_conv"] = One(last, 2 * last, (3, 1), groups=last, squeezed=2 * last // 16, rngs=rngs)
    blocks[PRE_LOGITS] = GlobalPool()
    return Backbone(blocks, 2 * last)


def _timm(shape: Shape, path: tuple[str, ...]) -> str | LibraryLayer | None:
    match path:
        case ("head", "classifier"):
            return "head.fc"
        case ("backbone", "stem", part, *layers):
            return _one(f"stem.{part.removeprefix('one')}", layers)
        case ("backbone", "final_conv" as block, *layers):
            return _one(block, layers)
        case ("backbone", block, "one", *layers):
            return _one(f"{block}.proj.1", layers)
        case ("backbone", block, *layers) if block.endswith("downsample"):
            return _one(f"{block}.proj.0", layers, names=("large_conv", "small_conv"))
        case ("backbone", block, "conv") if block.endswith("pos_emb"):
            return f"{block}.pos_enc"
        case ("backbone", block, "mixer", "input" | "convs" as part, *layers):
            module = "norm" if part == "input" else "mixer"
            return _one(f"{block}.token_mixer.{module}", ["convs", *layers])
        case ("backbone", block, "mixer", "scale", "gamma"):
            return LibraryLayer((f"{block}.token_mixer.layer_scale.gamma",), trailing=2)
        case ("backbone", block, "scale1" | "scale2" as scale, "gamma"):
            ending = f"_{scale.removeprefix('scale')}" if shape.attends(int(block.split(".")[1])) else ""
            return LibraryLayer((f"{block}.layer_scale{ending}.gamma",), trailing=2)
        case ("backbone", block, "mixer", layer):
            return f"{block}.token_mixer.{layer}"
        case ("backbone", block, "conv", layer):
            return f"{block}.mlp.conv.{'conv' if layer == 'conv' else 'bn'}"
        case ("backbone", block, "fc1" | "fc2" as layer):
            return f"{block}.mlp.{layer}"
        case ("backbone", block, "norm"):
            return f"{block}.norm"
    return None


def _one(module: str, layers: Sequence[str], names: tuple[str, str] = ("conv_kxk.0", "conv_scale")) -> str:
    """Returns timm's name of a layer of a `One` or of its convolutions.

    Args:
        module: Name of the module in timm.
        layers: Path of the layer inside of the module.
        names: Names of the two parallel convolutions.
    """
    match layers:
        case ["se", layer]:
            return f"{module}.se.{'fc1' if layer == 'reduce' else 'fc2'}"
        case ["convs", "norm"]:
            return f"{module}.identity"
    _, conv, layer = layers
    return f"{module}.{names[int(conv.removeprefix('conv'))]}.{'conv' if layer == 'conv' else 'bn'}"


_MOBILECLIP = {"expansion": 3, "squeezes": True, "active": True}
_MOBILECLIP2 = {"attention": 2, "active": True, "layer_norm": True, "branched_stem": False}
_SHAPES = {
    "fastvit_t8": Shape((2, 2, 4, 2), 48, 3, 0),
    "fastvit_t12": Shape((2, 2, 6, 2), 64, 3, 0),
    "fastvit_s12": Shape((2, 2, 6, 2), attention=0),
    "fastvit_sa12": Shape((2, 2, 6, 2)),
    "fastvit_sa24": Shape((4, 4, 12, 4)),
    "fastvit_sa36": Shape((6, 6, 18, 6)),
    "fastvit_ma36": Shape((6, 6, 18, 6), 76),
    "fastvit_mci0": Shape((2, 6, 10, 2), **_MOBILECLIP),
    "fastvit_mci1": Shape((4, 12, 20, 4), **_MOBILECLIP),
    "fastvit_mci2": Shape((4, 12, 24, 4), 80, **_MOBILECLIP),
    "fastvit_mci3": Shape((2, 12, 24, 4, 2), 96, **_MOBILECLIP2),
    "fastvit_mci4": Shape((2, 12, 24, 4, 4), 128, **_MOBILECLIP2),
}


def _variant(shape: Shape) -> Variant:
    clip = shape.active
    expected = Preprocessing(
        image_size=256,
        crop_fraction=0.95 if clip else 0.9,
        mean=(0.0, 0.0, 0.0) if clip else IMAGENET_MEAN,
        std=(255.0, 255.0, 255.0) if clip else IMAGENET_STD,
    )
    return Variant(shape=shape, preprocessing=expected)


FAMILY = Family(
    name="fastvit",
    variants={name: _variant(shape) for name, shape in _SHAPES.items()},
    build=build,
    layer_names={"timm": _timm},
)
