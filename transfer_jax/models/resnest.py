"""ResNeSt 14 to 269, with the names of timm.

Source: Zhang et al. 2020, arXiv:2004.08955: a ResNet-D whose 3x3 convolutions have several splits of the
channels, with attention over the splits.
"""

import dataclasses
from typing import Any

import jax
from flax import nnx

from transfer_jax.models.backbone import Backbone
from transfer_jax.models.family import IMAGENET_MEAN, IMAGENET_STD, Family, LibraryLayer, Setting, Variant
from transfer_jax.models.preprocessing import Preprocessing
from transfer_jax.models.resnet import DEEP, DEPTHS, WIDE, build_of, torch_layer
from transfer_jax.models.resnet import Shape as ResNetShape
from transfer_jax.nn.antialiasing import halve
from transfer_jax.nn.layers import Conv, ConvNorm, DropPath


@dataclasses.dataclass(frozen=True)
class Shape(ResNetShape):
    """The sizes of a ResNeSt.

    Attributes:
        splits: Number of splits.
        early: Whether a stride's average comes before the 3x3 convolution; otherwise after it.
    """

    splits: int = 2
    early: bool = False


class SplitAttention(nnx.Module):
    """A 3x3 convolution to several splits of the channels, and their sum, weighted by attention.

    It keeps the shape `(batch, height, width, features)`.
    """

    def __init__(self, shape: Shape, features: int, rngs: nnx.Rngs) -> None:
        common = {**shape.layers, "rngs": rngs}
        self.groups, self.splits, wide = shape.groups, shape.splits, features * shape.splits
        inner = max(32, int(wide * 0.25 + 4) // 8 * 8)
        self.convs = ConvNorm(
            features, wide, 3, padding=1, groups=self.groups * self.splits, activation=jax.nn.relu, **common
        )
        self.reduce = ConvNorm(
            features,
            inner,
            groups=self.groups,
            activation=jax.nn.relu,
            **{**common, "use_bias": True},
        )
        self.expand = Conv(inner, wide, groups=self.groups, use_bias=True, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.convs(x)
        batch, height, width, _ = y.shape
        parts = y.reshape(batch, height, width, self.splits, -1)
        weights = self.expand(self.reduce(parts.sum(axis=3).mean(axis=(1, 2), keepdims=True)))
        if self.splits == 1:
            return y * jax.nn.sigmoid(weights)
        weights = jax.nn.softmax(weights.reshape(batch, self.groups, self.splits, -1), axis=2)
        weights = weights.swapaxes(1, 2).reshape(batch, 1, 1, self.splits, -1)
        return (parts * weights).sum(axis=3)


class SplitResidual(nnx.Module):
    """A residual bottleneck with split attention; the arguments and shapes are those of `Residual`.

    A stride is the average of 3x3 pixels, with zeros around the image.
    """

    def __init__(
        self, shape: Shape, in_features: int, width: int, strides: int, drop_path: float, rngs: nnx.Rngs
    ) -> None:
        inner = width * shape.group_width // 64 * shape.groups
        self.conv1 = ConvNorm(in_features, inner, activation=jax.nn.relu, **shape.layers, rngs=rngs)
        self.conv2 = SplitAttention(shape, inner, rngs)
        self.conv3 = ConvNorm(inner, 4 * width, **shape.layers, rngs=rngs)
        self.downsample = shape.downsample(in_features, 4 * width, strides, rngs)
        self.strides, self.early = strides, shape.early
        self.drop_path = DropPath(drop_path)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        y = self.conv1(x)
        if self.strides > 1 and self.early:
            y = blurred(y, self.strides)
        y = self.conv2(y)
        if self.strides > 1 and not self.early:
            y = blurred(y, self.strides)
        if self.strides > 1:
            x = halve(x, "average_ceil")
        if self.downsample is not None:
            x = self.downsample(x)
        return jax.nn.relu(x + self.drop_path(self.conv3(y), rngs=rngs))


def blurred(x: jax.Array, strides: int) -> jax.Array:
    """Returns the means of 3x3 pixels with a stride; the image is surrounded by zeros."""
    around: Any = ((1, 1), (1, 1))
    return nnx.avg_pool(x, (3, 3), (strides, strides), padding=around)


def build(shape: Shape, setting: Setting) -> Backbone:
    """Builds the blocks `stem`, `layer1.0` …, `pre_logits`; see `resnet.build`."""
    return build_of(SplitResidual, shape, setting)


def _timm(shape: Shape, path: tuple[str, ...]) -> str | LibraryLayer | None:
    match path:
        case ("backbone", block, "conv2", "convs" | "reduce" | "expand" as part, *layers):
            return f"{block}.conv2.{_PARTS[part][layers == ['norm']]}"
    return torch_layer(shape, path)


_PARTS = {"convs": ("conv", "bn0"), "reduce": ("fc1", "bn1"), "expand": ("fc2", "")}


def _variant(shape: Shape, size: int, crop: float, interpolation: str) -> Variant:
    expected = Preprocessing(
        image_size=size,
        crop_fraction=crop,
        interpolation=interpolation,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
    )
    return Variant(shape=shape, preprocessing=expected)


def _d(depths: tuple[int, int, int, int], **options: int | bool) -> Shape:
    return Shape(depths, stem=DEEP, average=True, **options)  # pyright: ignore[reportArgumentType]


def _e(depths: tuple[int, int, int, int]) -> Shape:
    return Shape(depths, stem=WIDE, average=True)


FAMILY = Family(
    name="resnest",
    variants={
        "resnest50d": _variant(_d(DEPTHS[50]), 224, 0.875, "bilinear"),
        "resnest14d": _variant(_d((1, 1, 1, 1)), 224, 0.875, "bilinear"),
        "resnest26d": _variant(_d(DEPTHS[26]), 224, 0.875, "bilinear"),
        "resnest101e": _variant(_e(DEPTHS[101]), 256, 0.875, "bilinear"),
        "resnest200e": _variant(_e(DEPTHS[200]), 320, 0.909, "bicubic"),
        "resnest269e": _variant(_e((3, 30, 48, 8)), 416, 0.928, "bicubic"),
        "resnest50d_4s2x40d": _variant(
            _d(DEPTHS[50], groups=2, group_width=40, splits=4, early=True), 224, 0.875, "bicubic"
        ),
        "resnest50d_1s4x24d": _variant(
            _d(DEPTHS[50], groups=4, group_width=24, splits=1, early=True), 224, 0.875, "bicubic"
        ),
    },
    build=build,
    layer_names={"timm": _timm},
)
