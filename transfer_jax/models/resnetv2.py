"""ResNet V2, which normalizes before its convolutions: BiT, and variants with batch normalization.

Sources: He et al. 2016, arXiv:1603.05027; Kolesnikov et al. 2019, arXiv:1912.11370 (BiT: group normalization,
and convolutions with standardized kernels, Qiao et al. 2019, arXiv:1903.10520). The names of blocks and
networks are timm's.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from transfer_jax.models.backbone import PRE_LOGITS, Backbone
from transfer_jax.models.family import HALF, Family, LibraryLayer, Setting, Variant, with_prefix
from transfer_jax.models.preprocessing import Preprocessing
from transfer_jax.nn.conv import conv2d
from transfer_jax.nn.layers import Conv, DropPath, GlobalPool, GroupNorm, NormAct
from transfer_jax.nn.pooling import max_pool


@dataclasses.dataclass(frozen=True)
class Shape:
    """The sizes of a ResNet V2.

    Attributes:
        depths: Number of blocks of each stage.
        width: Factor of width, relative to ResNet.
        bit: Whether it is a BiT.
    """

    depths: tuple[int, int, int, int]
    width: int = 1
    bit: bool = True

    @property
    def features(self) -> int:
        """The number of channels of the pooled output."""
        return 2048 * self.width

    def conv(
        self, in_features: int, features: int, kernel_size: int = 1, strides: int = 1, *, rngs: nnx.Rngs
    ) -> Conv:
        """Returns a convolution of this network, standardized for BiT."""
        layer = StandardizedConv if self.bit else Conv
        return layer(in_features, features, kernel_size, strides=strides, padding=kernel_size // 2, rngs=rngs)

    def norm(self, features: int, *, rngs: nnx.Rngs) -> nnx.Module:
        """Returns a normalization of this network, followed by a ReLU."""
        return GroupNormAct(features, rngs) if self.bit else NormAct(features, momentum=0.9, rngs=rngs)


class StandardizedConv(Conv):
    """A convolution whose kernel is scaled to mean 0 and variance 1 for each output channel."""

    def __call__(self, x: jax.Array, gain: jax.Array | None = None) -> jax.Array:
        """Convolves `x`, in its dtype; `gain` multiplies the output per channel."""
        kernel = self.kernel[...].astype(jnp.float32)
        mean, var = kernel.mean(axis=(0, 1, 2)), kernel.var(axis=(0, 1, 2))
        kernel = (kernel - mean) * jax.lax.rsqrt(var + 1e-8)
        kernel = kernel if gain is None else kernel * gain
        return conv2d(x, kernel.astype(x.dtype), strides=self.strides, padding=self.padding)


class GroupNormAct(nnx.Module):
    """Group normalization with 32 groups and a ReLU, of `(batch, height, width, features)`."""

    def __init__(self, features: int, rngs: nnx.Rngs) -> None:
        self.norm = GroupNorm(features, 32, epsilon=1e-5, rngs=rngs)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        return jax.nn.relu(self.norm(x))


class Stem(nnx.Module):
    """A 7x7 convolution and a 3x3 max pooling, each with stride 2.

    It maps `(batch, height, width, channels)` to `(batch, height / 4, width / 4, features)`. A BiT pads the
    max pooling with zeros, which can be the maximum.
    """

    def __init__(self, shape: Shape, channels: int, features: int, rngs: nnx.Rngs) -> None:
        self.conv = shape.conv(channels, features, 7, 2, rngs=rngs)
        self.bit = shape.bit

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        x = self.conv(x)
        if self.bit:
            return max_pool(jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), 3, 2)
        return max_pool(x, 3, 2, padding=1)


class PreActivation(nnx.Module):
    """A residual block of 1x1, 3x3 and 1x1 convolutions, each after a normalization.

    It maps `(batch, height, width, in_features)` to `(batch, height / strides, width / strides, features)`.
    The shortcut of a stage's first block is a 1x1 convolution of the normalized input.
    """

    def __init__(
        self,
        shape: Shape,
        in_features: int,
        features: int,
        strides: int,
        first: bool,
        drop_path: float,
        rngs: nnx.Rngs,
    ) -> None:
        inner = features // 4
        self.norm1 = shape.norm(in_features, rngs=rngs)
        self.conv1 = shape.conv(in_features, inner, rngs=rngs)
        self.norm2 = shape.norm(inner, rngs=rngs)
        self.conv2 = shape.conv(inner, inner, 3, strides, rngs=rngs)
        self.norm3 = shape.norm(inner, rngs=rngs)
        self.conv3 = shape.conv(inner, features, rngs=rngs)
        self.downsample = shape.conv(in_features, features, strides=strides, rngs=rngs) if first else None
        self.drop_path = DropPath(drop_path)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        y = self.norm1(x)
        shortcut = x if self.downsample is None else self.downsample(y)
        y = self.conv2(self.norm2(self.conv1(y)))
        y = self.conv3(self.norm3(y))
        return shortcut + self.drop_path(y, rngs=rngs)


def build(shape: Shape, setting: Setting) -> Backbone:
    """Builds the blocks `stem`, `stages.0.blocks.0` …, `norm`, `pre_logits`.

    The backbone maps images `(batch, height, width, channels)` to features `(batch, shape.features)`.
    """
    rngs, features, index = setting.rngs, 64 * shape.width, 0
    blocks: dict[str, nnx.Module] = {"stem": Stem(shape, setting.channels, features, rngs)}
    for stage, depth in enumerate(shape.depths):
        width = 256 * 2**stage * shape.width
        for repeat in range(depth):
            strides = 2 if stage and not repeat else 1
            rate = setting.drop_path * index / (sum(shape.depths) - 1)
            blocks[f"stages.{stage}.blocks.{repeat}"] = PreActivation(
                shape, features, width, strides, repeat == 0, rate, rngs
            )
            features, index = width, index + 1
    blocks["norm"] = shape.norm(features, rngs=rngs)
    blocks[PRE_LOGITS] = GlobalPool()
    return Backbone(blocks, features)


def _timm(shape: Shape, path: tuple[str, ...]) -> str | LibraryLayer | None:
    match path:
        case ("head", "classifier"):
            return LibraryLayer(("head.fc",), view=(1, 1, shape.features), flat=False)
        case ("backbone", "stem", "conv"):
            return "stem.conv"
        case ("backbone", "norm", "norm"):
            return "norm"
        case ("backbone", block, "downsample"):
            return f"{block}.downsample.conv"
        case ("backbone", block, layer, *_):
            return f"{block}.{layer}"
    return None


def _transformers(shape: Shape, path: tuple[str, ...]) -> str | None:
    """Returns the layer names of Hugging Face, which has BiT only."""
    match path:
        case ("backbone", "stem", "conv") if shape.bit:
            return "embedder.convolution"
        case ("backbone", "norm", "norm") if shape.bit:
            return "norm"
        case ("backbone", block, layer, *_) if shape.bit:
            module = block.replace("blocks", "layers")
            return f"encoder.{module}.{'downsample.conv' if layer == 'downsample' else layer}"
    return None


def _big_transfer(shape: Shape, path: tuple[str, ...]) -> LibraryLayer | None:
    """Returns the layer names of BiT's published `.npz` files, which are TensorFlow's."""
    match path:
        case ("head", "classifier"):
            return LibraryLayer(("resnet/head/conv2d",), view=(1, 1, shape.features), flat=False)
        case ("backbone", "stem", "conv") if shape.bit:
            return LibraryLayer(("resnet/root_block/standardized_conv2d",))
        case ("backbone", "norm", "norm") if shape.bit:
            return LibraryLayer(("resnet/group_norm",))
        case ("backbone", block, layer, *_) if shape.bit:
            if layer == "downsample":
                return LibraryLayer((f"resnet/{_unit(block)}/a/proj/standardized_conv2d",))
            kind = "group_norm" if layer.startswith("norm") else "standardized_conv2d"
            return LibraryLayer((f"resnet/{_unit(block)}/{'abc'[int(layer[-1]) - 1]}/{kind}",))
    return None


def _big_vision(shape: Shape, path: tuple[str, ...]) -> LibraryLayer | None:
    """Returns the layer names of big_vision's BiT, whose normalizations have the axes of an image."""
    match path:
        case ("head", "classifier"):
            return LibraryLayer(("head",))
        case ("backbone", "stem", "conv") if shape.bit:
            return LibraryLayer(("root_block/conv_root",))
        case ("backbone", "norm", "norm") if shape.bit:
            return LibraryLayer(("norm-pre-head",), leading=3)
        case ("backbone", block, layer, *_) if shape.bit:
            if layer.startswith("norm"):
                return LibraryLayer((f"{_unit(block)}/{layer.replace('norm', 'gn')}",), leading=3)
            return LibraryLayer((f"{_unit(block)}/{'conv_proj' if layer == 'downsample' else layer}",))
    return None


def _unit(block: str) -> str:
    """Returns Google's name of a block `stages.0.blocks.0` …."""
    _, stage, _, repeat = block.split(".")
    return f"block{int(stage) + 1}/unit{int(repeat) + 1:02d}"


def _variant(shape: Shape, size: int, crop: float, interpolation: str) -> Variant:
    preprocessing = Preprocessing(
        image_size=size, crop_fraction=crop, interpolation=interpolation, mean=HALF, std=HALF
    )
    return Variant(shape=shape, preprocessing=preprocessing)


_DEPTHS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}

FAMILY = Family(
    name="resnetv2",
    variants={
        **{
            f"resnetv2_{depth}x{width}_bit": _variant(Shape(_DEPTHS[depth], width), size, 1.0, "bilinear")
            for depth, width, size in (
                (50, 1, 448),
                (50, 3, 448),
                (101, 1, 448),
                (101, 3, 448),
                (152, 2, 448),
                (152, 4, 480),
            )
        },
        **{
            f"resnetv2_{depth}": _variant(Shape(_DEPTHS[depth], bit=False), 224, 0.95, "bicubic")
            for depth in (50, 101)
        },
    },
    build=build,
    layer_names={
        "timm": _timm,
        "transformers": with_prefix("bit", _transformers, classifier="classifier.1"),
        "transformers-base": _transformers,
        "big_transfer": _big_transfer,
        "big_vision": _big_vision,
    },
)
