"""RegNetX and RegNetY.

Source: Radosavovic et al. 2020, arXiv:2003.13678. `regnet_y_400mf` … are torchvision's networks,
`regnety_004` … timm's; all of them load the names of both libraries. Three networks have other widths in
torchvision, which rounds differently. The names of blocks are timm's.
"""

import dataclasses

import jax
import numpy as np
from flax import nnx

from transfer_jax.models.backbone import PRE_LOGITS, Backbone
from transfer_jax.models.family import IMAGENET_MEAN, IMAGENET_STD, Family, Setting, Variant, with_prefix
from transfer_jax.models.mbconv import SqueezeExcite, Style
from transfer_jax.models.preprocessing import Preprocessing
from transfer_jax.nn.layers import ConvNorm, DropPath, GlobalPool

_STEM = 32
_STYLE = Style(activation=jax.nn.relu, squeeze=jax.nn.relu)


@dataclasses.dataclass(frozen=True)
class Shape:
    """The sizes of a RegNet.

    Attributes:
        depths: Number of blocks of each stage.
        widths: Number of channels of each stage.
        group: Number of channels of a group.
        squeezes: Whether blocks have squeeze-and-excitation (RegNetY).
    """

    depths: tuple[int, ...]
    widths: tuple[int, ...]
    group: int
    squeezes: bool


class Bottleneck(nnx.Module):
    """A residual block of 1x1, grouped 3x3 and 1x1 convolutions, without a bottleneck.

    It maps `(batch, height, width, in_features)` to `(batch, height / strides, width / strides, width)`.
    """

    def __init__(
        self, shape: Shape, in_features: int, width: int, strides: int, drop_path: float, rngs: nnx.Rngs
    ) -> None:
        common = {"momentum": 0.9, "rngs": rngs}
        groups = width // min(shape.group, width)
        self.conv1 = ConvNorm(in_features, width, activation=jax.nn.relu, **common)
        self.conv2 = ConvNorm(
            width, width, 3, strides=strides, padding=1, groups=groups, activation=jax.nn.relu, **common
        )
        self.se = SqueezeExcite(width, round(in_features / 4), _STYLE, rngs) if shape.squeezes else None
        self.conv3 = ConvNorm(width, width, **common)
        reshapes = strides > 1 or in_features != width
        self.downsample = ConvNorm(in_features, width, strides=strides, **common) if reshapes else None
        self.drop_path = DropPath(drop_path)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        y = self.conv2(self.conv1(x))
        y = self.conv3(y if self.se is None else self.se(y))
        x = x if self.downsample is None else self.downsample(x)
        return jax.nn.relu(x + self.drop_path(y, rngs=rngs))


def build(shape: Shape, setting: Setting) -> Backbone:
    """Builds the blocks `stem`, `s1.b1` …, `pre_logits`.

    The backbone maps images `(batch, height, width, channels)` to features `(batch, shape.widths[-1])`.
    """
    rngs, features, index = setting.rngs, _STEM, 0
    blocks: dict[str, nnx.Module] = {
        "stem": ConvNorm(
            setting.channels,
            features,
            3,
            strides=2,
            padding=1,
            momentum=0.9,
            activation=jax.nn.relu,
            rngs=rngs,
        )
    }
    for stage, (depth, width) in enumerate(zip(shape.depths, shape.widths, strict=True), 1):
        for repeat in range(1, depth + 1):
            rate = setting.drop_path * index / (sum(shape.depths) - 1)
            strides = 2 if repeat == 1 else 1
            blocks[f"s{stage}.b{repeat}"] = Bottleneck(shape, features, width, strides, rate, rngs)
            features, index = width, index + 1
    blocks[PRE_LOGITS] = GlobalPool()
    return Backbone(blocks, features)


def _timm(shape: Shape, path: tuple[str, ...]) -> str | None:
    match path:
        case ("head", "classifier"):
            return "head.fc"
        case ("backbone", block, "se", layer):
            return f"{block}.se.{_SQUEEZE[layer]}"
        case ("backbone", *modules, layer):
            return ".".join((*modules, "conv" if layer == "conv" else "bn"))
    return None


def _torchvision(shape: Shape, path: tuple[str, ...]) -> str | None:
    match path:
        case ("head", "classifier"):
            return "fc"
        case ("backbone", "stem", layer):
            return f"stem.{0 if layer == 'conv' else 1}"
        case ("backbone", block, part, layer):
            stage, repeat = block.removeprefix("s").split(".b")
            module = f"trunk_output.block{stage}.block{stage}-{int(repeat) - 1}"
            if part == "se":
                return f"{module}.f.se.{_SQUEEZE[layer]}"
            return f"{module}.{_TORCHVISION[part]}.{0 if layer == 'conv' else 1}"
    return None


def _transformers(shape: Shape, path: tuple[str, ...]) -> str | None:
    """Returns the layer names of Hugging Face."""
    match path:
        case ("backbone", "stem", layer):
            return f"embedder.embedder.{_LAYERS[layer]}"
        case ("backbone", block, part, layer):
            stage, repeat = block.removeprefix("s").split(".b")
            module = f"encoder.stages.{int(stage) - 1}.layers.{int(repeat) - 1}"
            match part:
                case "se":
                    return f"{module}.layer.2.attention.{0 if layer == 'reduce' else 2}"
                case "downsample":
                    return f"{module}.shortcut.{_LAYERS[layer]}"
            index = {"conv1": 0, "conv2": 1, "conv3": 2 + shape.squeezes}[part]
            return f"{module}.layer.{index}.{_LAYERS[layer]}"
    return None


_LAYERS = {"conv": "convolution", "norm": "normalization"}
_SQUEEZE = {"reduce": "fc1", "expand": "fc2"}
_TORCHVISION = {"conv1": "f.a", "conv2": "f.b", "conv3": "f.c", "downsample": "proj"}

# initial width, slope, step, channels of a group, depth, crop of timm's weights. The width grows linearly
# with the block, and is then rounded to powers of the step.
_X = {
    "002": (24, 36.44, 2.49, 8, 13, 0.875),
    "004": (24, 24.48, 2.54, 16, 22, 0.875),
    "006": (48, 36.97, 2.24, 24, 16, 0.875),
    "008": (56, 35.73, 2.28, 16, 16, 0.965),
    "016": (80, 34.01, 2.25, 24, 18, 0.965),
    "032": (88, 26.31, 2.25, 48, 25, 0.965),
    "040": (96, 38.65, 2.43, 40, 23, 0.875),
    "064": (184, 60.83, 2.07, 56, 17, 0.875),
    "080": (80, 49.56, 2.88, 120, 23, 0.965),
    "120": (168, 73.36, 2.37, 112, 19, 0.875),
    "160": (216, 55.59, 2.1, 128, 22, 0.965),
    "320": (320, 69.86, 2.0, 168, 23, 0.965),
}
_Y = {
    "002": (24, 36.44, 2.49, 8, 13, 0.875),
    "004": (48, 27.89, 2.09, 8, 16, 0.965),
    "006": (48, 32.54, 2.32, 16, 15, 0.875),
    "008": (56, 38.84, 2.4, 16, 14, 0.875),
    "016": (48, 20.71, 2.65, 24, 27, 0.965),
    "032": (80, 42.63, 2.66, 24, 21, 0.95),
    "040": (96, 31.41, 2.24, 64, 22, 0.95),
    "064": (112, 33.22, 2.27, 72, 25, 0.95),
    "080": (192, 76.82, 2.19, 56, 17, 0.95),
    "120": (168, 73.36, 2.37, 112, 19, 0.95),
    "160": (200, 106.23, 2.48, 112, 18, 0.95),
    "320": (232, 115.89, 2.53, 232, 20, 0.965),
}
_FLOPS = {
    "400mf": "004",
    "800mf": "008",
    "1_6gf": "016",
    "3_2gf": "032",
    "8gf": "080",
    "16gf": "160",
    "32gf": "320",
}


def _shape(kind: str, size: str, *, torchvision: bool = False) -> Shape:
    initial, slope, step, group, depth, _ = (_Y if kind == "y" else _X)[size]
    powers = np.round(np.log((np.arange(depth) * slope + initial) / initial) / np.log(step))
    widths, depths = np.unique(np.round(initial * step**powers / 8) * 8, return_counts=True)
    fitted = tuple(_fit(int(width), min(group, int(width)), torchvision) for width in widths)
    return Shape(tuple(map(int, depths)), fitted, group, kind == "y")


def _fit(width: int, group: int, torchvision: bool) -> int:
    """Rounds a width to a multiple of the group; torchvision rounds down by at most a tenth."""
    fitted = int(width / group + 0.5) * group if torchvision else round(width / group) * group
    return fitted + group if torchvision and fitted < 0.9 * width else fitted


def _variant(shape: Shape, crop: float, interpolation: str) -> Variant:
    preprocessing = Preprocessing(
        crop_fraction=crop, interpolation=interpolation, mean=IMAGENET_MEAN, std=IMAGENET_STD
    )
    return Variant(shape=shape, preprocessing=preprocessing)


FAMILY = Family(
    name="regnet",
    variants={
        **{
            f"regnet_{kind}_{flops}": _variant(_shape(kind, size, torchvision=True), 224 / 232, "bilinear")
            for kind in "yx"
            for flops, size in _FLOPS.items()
        },
        **{
            f"regnet{kind}_{size}": _variant(_shape(kind, size), crop, "bicubic")
            for kind, sizes in (("y", _Y), ("x", _X))
            for size, (*_, crop) in sizes.items()
        },
    },
    build=build,
    layer_names={
        "torchvision": _torchvision,
        "timm": _timm,
        "transformers": with_prefix("regnet", _transformers, classifier="classifier.1"),
        "transformers-base": _transformers,
    },
)
