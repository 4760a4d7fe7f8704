"""ResNet 10 to 200, Wide ResNet, ResNeXt, and ResNet-C, -D, -S and -T; `keras_*` are Keras's variants.

Sources: He et al. 2015, arXiv:1512.03385, with the stride of a bottleneck in its 3x3 convolution ("v1.5");
Zagoruyko and Komodakis 2016, arXiv:1605.07146; Xie et al. 2017, arXiv:1611.05431; He et al. 2018,
arXiv:1812.01187 (C: a stem of three convolutions; D: also average pooling before the 1x1 convolution of a
shortcut). S is C with more channels in the stem, and T is D with fewer. Keras has the stride in the first 1x1
convolution, as the first paper, biases in its convolutions, and another epsilon.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
from flax import nnx

from transfer_jax.models.backbone import PRE_LOGITS, Backbone
from transfer_jax.models.channel_attention import channel_attention, torch_attention
from transfer_jax.models.family import (
    CAFFE,
    IMAGENET_MEAN,
    IMAGENET_STD,
    Family,
    LibraryLayer,
    Setting,
    Variant,
    with_prefix,
)
from transfer_jax.models.preprocessing import Preprocessing
from transfer_jax.nn.antialiasing import AntialiasedConvNorm, halve
from transfer_jax.nn.layers import ConvNorm, DropPath, GlobalPool
from transfer_jax.nn.pooling import max_pool


@dataclasses.dataclass(frozen=True)
class Shape:
    """The sizes of a ResNet.

    Attributes:
        depths: Number of blocks of each stage.
        bottleneck: Whether blocks are bottlenecks; otherwise pairs of 3x3 convolutions.
        groups: Number of groups of a bottleneck's 3x3 convolution.
        group_width: Number of channels of a group, for a stage of 64 channels.
        stem: Number of channels of each of the stem's three convolutions; empty for one 7x7 convolution.
        average: Whether shortcuts average pixels in place of a stride.
        attention: Attention over the channels of a block's branch: `se` (squeeze and excitation), `eca`, or
            empty for none.
        squeeze: Fraction of the channels inside of `se`.
        antialias: Whether the mean of 2x2 pixels replaces the strides of branches and the stem's pooling.
        learned_pool: Whether a convolution replaces the stem's max pooling.
        keras: Whether it is Keras's variant.
    """

    depths: tuple[int, int, int, int]
    bottleneck: bool = True
    groups: int = 1
    group_width: int = 64
    stem: tuple[int, ...] = ()
    average: bool = False
    attention: str = ""
    squeeze: float = 1 / 16
    antialias: bool = False
    learned_pool: bool = False
    keras: bool = False

    @property
    def layers(self) -> dict[str, Any]:
        """The options of all convolutions and normalizations."""
        return {"use_bias": self.keras, "epsilon": 1.001e-5 if self.keras else 1e-5, "momentum": 0.9}

    def downsample(self, in_features: int, out: int, strides: int, rngs: nnx.Rngs) -> ConvNorm | None:
        """Returns the 1x1 convolution of a shortcut; None if the shapes are equal."""
        if strides == 1 and in_features == out:
            return None
        return ConvNorm(in_features, out, strides=1 if self.average else strides, **self.layers, rngs=rngs)


class Stem(nnx.Module):
    """A 7x7 convolution, or three 3x3 ones, with stride 2, and a pooling with stride 2.

    It maps `(batch, height, width, channels)` to `(batch, height / 4, width / 4, 64)`. The pooling is a 3x3
    max pooling, a mean of 2x2 pixels, or a 3x3 convolution.
    """

    def __init__(self, channels: int, shape: Shape, rngs: nnx.Rngs) -> None:
        common = {**shape.layers, "activation": jax.nn.relu, "rngs": rngs}
        if shape.stem:
            for number, width in enumerate(shape.stem, 1):
                conv = ConvNorm(channels, width, 3, strides=2 if number == 1 else 1, padding=1, **common)
                setattr(self, f"conv{number}", conv)
                channels = width
        else:
            self.conv1 = ConvNorm(channels, 64, 7, strides=2, padding=3, **common)
            channels = 64
        self.count = len(shape.stem) or 1
        self.antialias = shape.antialias
        self.pool = (
            ConvNorm(channels, channels, 3, strides=2, padding=1, **common) if shape.learned_pool else None
        )

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        for number in range(1, self.count + 1):
            x = getattr(self, f"conv{number}")(x)
        if self.pool is not None:
            return self.pool(x)
        return halve(x, "average") if self.antialias else max_pool(x, 3, 2, padding=1)


class Residual(nnx.Module):
    """A residual block of two 3x3 convolutions, or of 1x1, 3x3 and 1x1 convolutions (a bottleneck).

    It maps `(batch, height, width, in_features)` to `(batch, height / strides, width / strides, out)`, where
    `out` is `width`, or four times `width` for a bottleneck. The shortcut has a 1x1 convolution if the shapes
    differ.
    """

    def __init__(
        self, shape: Shape, in_features: int, width: int, strides: int, drop_path: float, rngs: nnx.Rngs
    ) -> None:
        common = {**shape.layers, "rngs": rngs}
        out = width * (4 if shape.bottleneck else 1)
        if shape.bottleneck:
            inner = width * shape.group_width // 64 * shape.groups
            first, second = (strides, 1) if shape.keras else (1, strides)
            self.conv1 = ConvNorm(in_features, inner, strides=first, activation=jax.nn.relu, **common)
            self.conv2 = strided_conv(
                inner, inner, second, shape.antialias, groups=shape.groups, activation=jax.nn.relu, **common
            )
            self.conv3 = ConvNorm(inner, out, **common)
        else:
            self.conv1 = strided_conv(
                in_features, width, strides, shape.antialias, activation=jax.nn.relu, **common
            )
            self.conv2 = ConvNorm(width, out, 3, padding=1, **common)
        self.bottleneck = shape.bottleneck
        self.se = channel_attention(shape.attention, out, shape.squeeze, rngs)
        self.average = shape.average and strides > 1
        self.downsample = shape.downsample(in_features, out, strides, rngs)
        self.drop_path = DropPath(drop_path)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        y = self.conv2(self.conv1(x))
        if self.bottleneck:
            y = self.conv3(y)
        if self.se is not None:
            y = self.se(y)
        if self.average:
            x = halve(x, "average_ceil")
        if self.downsample is not None:
            x = self.downsample(x)
        return jax.nn.relu(x + self.drop_path(y, rngs=rngs))


def strided_conv(in_features: int, features: int, strides: int, antialias: bool, **options: Any) -> ConvNorm:
    """Returns a 3x3 convolution with a stride, or with the mean of 2x2 pixels in place of a stride of 2."""
    if antialias and strides == 2:
        return AntialiasedConvNorm(in_features, features, 3, filter_name="average_ceil", padding=1, **options)
    return ConvNorm(in_features, features, 3, strides=strides, padding=1, **options)


def build(shape: Shape, setting: Setting) -> Backbone:
    """Builds the blocks `stem`, `layer1.0` …, `pre_logits`.

    The backbone maps images `(batch, height, width, channels)` to features `(batch, 2048)`,
    or `(batch, 512)` without bottlenecks.
    """
    return build_of(Residual, shape, setting)


def build_of(block: Callable[..., nnx.Module], shape: Shape, setting: Setting) -> Backbone:
    """Builds a ResNet of other blocks; `block` takes the arguments of `Residual`."""
    blocks: dict[str, nnx.Module] = {"stem": Stem(setting.channels, shape, setting.rngs)}
    features, index, total = shape.stem[-1] if shape.stem else 64, 0, sum(shape.depths)
    for stage, depth in enumerate(shape.depths):
        width = 64 * 2**stage
        for repeat in range(depth):
            strides = 2 if stage and not repeat else 1
            rate = setting.drop_path * index / max(total - 1, 1)
            blocks[f"layer{stage + 1}.{repeat}"] = block(shape, features, width, strides, rate, setting.rngs)
            features, index = width * (4 if shape.bottleneck else 1), index + 1
    blocks[PRE_LOGITS] = GlobalPool()
    return Backbone(blocks, features)


_DEEP_STEM = {"conv1": (0, 1), "conv2": (3, 4), "conv3": (6, None)}


def torch_layer(shape: Shape, path: tuple[str, ...]) -> str | LibraryLayer | None:
    """Returns the layer names of torchvision and timm, which are the same."""
    match path:
        case ("head", "classifier"):
            return "fc"
        case ("backbone", "stem", "pool", layer):
            return f"maxpool.{0 if layer == 'conv' else 1}"
        case ("backbone", "stem", conv, layer):
            if not shape.stem:
                return "conv1" if layer == "conv" else "bn1"
            index = _DEEP_STEM[conv][layer == "norm"]
            return "bn1" if index is None else f"conv1.{index}"
        case ("backbone", block, "downsample", layer):
            return f"{block}.downsample.{(layer == 'norm') + shape.average}"
        case ("backbone", block, "se", layer):
            return torch_attention(f"{block}.se", layer)
        case ("backbone", block, conv, layer):
            return f"{block}.{conv if layer == 'conv' else conv.replace('conv', 'bn')}"
    return None


def _transformers(shape: Shape, path: tuple[str, ...]) -> str | None:
    """Returns the layer names of Hugging Face, which has no ResNet-C to -T and no antialiasing."""
    if shape.stem or shape.antialias:
        return None
    match path:
        case ("backbone", "stem", _, layer):
            return f"embedder.embedder.{_LAYERS[layer]}"
        case ("backbone", block, part, layer):
            stage, repeat = block.removeprefix("layer").split(".")
            inside = "shortcut" if part == "downsample" else f"layer.{int(part.removeprefix('conv')) - 1}"
            return f"encoder.stages.{int(stage) - 1}.layers.{repeat}.{inside}.{_LAYERS[layer]}"
    return None


def _keras(shape: Shape, path: tuple[str, ...]) -> str | None:
    match path:
        case _ if not shape.keras:
            return None
        case ("head", "classifier"):
            return "predictions"
        case ("backbone", "stem", _, layer):
            return f"conv1_{'conv' if layer == 'conv' else 'bn'}"
        case ("backbone", block, part, layer):
            stage, repeat = block.removeprefix("layer").split(".")
            number = 0 if part == "downsample" else int(part.removeprefix("conv"))
            block = f"conv{int(stage) + 1}_block{int(repeat) + 1}"
            return f"{block}_{number}_{'conv' if layer == 'conv' else 'bn'}"
    return None


def _keras_order(shape: Shape, path: tuple[str, ...]) -> tuple[int, ...]:
    """Returns the sort key of a layer: the running order, with the shortcut next to the last convolution."""
    number = 0 if path[2] == "downsample" else int(path[2].removeprefix("conv"))
    return number or 3, path[3] == "norm", number


_LAYERS = {"conv": "convolution", "norm": "normalization"}
DEEP, TIERED, WIDE = (32, 32, 64), (24, 32, 64), (64, 64, 128)
"""The channels of stems of three convolutions: those of ResNet-C and -D, of -T, and of -S."""
DEPTHS = {
    18: (2, 2, 2, 2),
    26: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    200: (3, 24, 36, 3),
}
"""The number of blocks of each stage, by the name of the size."""
_SHAPES = {
    "resnet18": Shape((2, 2, 2, 2), bottleneck=False),
    "resnet34": Shape((3, 4, 6, 3), bottleneck=False),
    "resnet50": Shape((3, 4, 6, 3)),
    "resnet101": Shape((3, 4, 23, 3)),
    "resnet152": Shape((3, 8, 36, 3)),
    "wide_resnet50_2": Shape((3, 4, 6, 3), group_width=128),
    "wide_resnet101_2": Shape((3, 4, 23, 3), group_width=128),
    "resnext50_32x4d": Shape((3, 4, 6, 3), groups=32, group_width=4),
    "resnext101_32x8d": Shape((3, 4, 23, 3), groups=32, group_width=8),
    "resnext101_64x4d": Shape((3, 4, 23, 3), groups=64, group_width=4),
    "resnext101_32x4d": Shape((3, 4, 23, 3), groups=32, group_width=4),
    "resnext101_32x16d": Shape((3, 4, 23, 3), groups=32, group_width=16),
    "resnext101_32x32d": Shape((3, 4, 23, 3), groups=32, group_width=32),
    "resnet26": Shape((2, 2, 2, 2)),
    **{
        f"resnet{size}c": Shape(depths, stem=DEEP)
        for size, depths in DEPTHS.items()
        if size in (50, 101, 152)
    },
    **{
        f"resnet{size}s": Shape(depths, stem=WIDE)
        for size, depths in DEPTHS.items()
        if size in (50, 101, 152)
    },
    **{
        f"resnet{size}d": Shape(depths, size not in (18, 34), stem=DEEP, average=True)
        for size, depths in DEPTHS.items()
    },
    "resnet10t": Shape((1, 1, 1, 1), bottleneck=False, stem=TIERED, average=True),
    "resnet14t": Shape((1, 1, 1, 1), stem=TIERED, average=True),
    "resnet26t": Shape((2, 2, 2, 2), stem=TIERED, average=True),
    "resnext50d_32x4d": Shape((3, 4, 6, 3), groups=32, group_width=4, stem=DEEP, average=True),
    "resnetaa50": Shape(DEPTHS[50], antialias=True),
    "resnetaa50d": Shape(DEPTHS[50], stem=DEEP, average=True, antialias=True),
    "resnetaa101d": Shape(DEPTHS[101], stem=DEEP, average=True, antialias=True),
    "keras_resnet50": Shape((3, 4, 6, 3), keras=True),
    "keras_resnet101": Shape((3, 4, 23, 3), keras=True),
    "keras_resnet152": Shape((3, 8, 36, 3), keras=True),
}
_EXPECTED = Preprocessing(mean=IMAGENET_MEAN, std=IMAGENET_STD, interpolation="bilinear")
_ANTIALIASED = Preprocessing(mean=IMAGENET_MEAN, std=IMAGENET_STD, crop_fraction=0.95)


def _preprocessing(shape: Shape) -> Preprocessing:
    if shape.keras:
        return CAFFE
    return _ANTIALIASED if shape.antialias else _EXPECTED


FAMILY = Family(
    name="resnet",
    variants={
        name: Variant(shape=shape, preprocessing=_preprocessing(shape)) for name, shape in _SHAPES.items()
    },
    build=build,
    layer_names={
        "torchvision": torch_layer,
        "timm": torch_layer,
        "transformers": with_prefix("resnet", _transformers, classifier="classifier.1"),
        "transformers-base": _transformers,
        "keras": _keras,
    },
    keras_order=_keras_order,
)
