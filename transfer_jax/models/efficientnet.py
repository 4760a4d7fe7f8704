"""EfficientNet B0 to B7, and EfficientNetV2 B0 to B3, S, M and L.

Sources: Tan and Le 2019, arXiv:1905.11946, and 2021, arXiv:2104.00298. `efficientnet_*` pads both sides
equally at a stride, as torchvision and timm do. `tf_efficientnet*` pads as TensorFlow does, for its published
weights. torchvision's B5 to B7 have a different epsilon from timm's, and their names begin with `tv_`.
"""

import dataclasses
import math

from flax import nnx

from transfer_jax.models.backbone import PRE_LOGITS, Backbone
from transfer_jax.models.family import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Family,
    LibraryLayer,
    Setting,
    Variant,
    with_prefix,
)
from transfer_jax.models.mbconv import (
    MBConv,
    Style,
    keras_order,
    round_channels,
    timm_layer,
    torchvision_layer,
)
from transfer_jax.models.preprocessing import Preprocessing
from transfer_jax.nn.activations import silu
from transfer_jax.nn.layers import GlobalPool


@dataclasses.dataclass(frozen=True)
class Stage:
    """A stage of equal blocks.

    Attributes:
        count: Number of blocks.
        kernel_size: Side of the depthwise kernel, in pixels.
        strides: Stride of the first block.
        expansion: Factor from the input channels of a block to its inner channels.
        channels: Number of output channels.
        fused: Whether the blocks are fused; see `MBConv`.
    """

    count: int
    kernel_size: int
    strides: int
    expansion: int
    channels: int
    fused: bool = False

    def layers(self) -> tuple[str, ...]:
        """Returns the names of the layers of its blocks, in order."""
        if self.fused:
            return ("fused",) if self.expansion == 1 else ("fused", "project")
        inner = ("depthwise", "se", "project")
        return inner if self.expansion == 1 else ("expand", *inner)


@dataclasses.dataclass(frozen=True)
class Shape:
    """The sizes of an EfficientNet.

    Attributes:
        stem: Number of channels of the stem.
        stages: The stages, in order.
        top: Number of channels of the last convolution.
        epsilon: Value added to the variance by normalizations.
        same: Whether to pad as TensorFlow's `SAME` does; otherwise both sides equally.
    """

    stem: int
    stages: tuple[Stage, ...]
    top: int
    epsilon: float
    same: bool


def build(shape: Shape, setting: Setting) -> Backbone:
    """Builds the blocks `stem`, `blocks.0.0` …, `top`, `pre_logits`.

    The backbone maps images `(batch, height, width, channels)` to features `(batch, shape.top)`.
    """
    style = Style(activation=silu, epsilon=shape.epsilon, same=shape.same)
    rngs, features, index = setting.rngs, shape.stem, 0
    total = sum(stage.count for stage in shape.stages)
    blocks: dict[str, nnx.Module] = {
        "stem": style.conv(setting.channels, features, 3, strides=2, activation=silu, rngs=rngs)
    }
    for number, stage in enumerate(shape.stages):
        for repeat in range(stage.count):
            blocks[f"blocks.{number}.{repeat}"] = MBConv(
                features,
                stage.channels,
                stage.kernel_size,
                1 if repeat else stage.strides,
                features * stage.expansion,
                squeezed=0 if stage.fused else max(1, features // 4),
                fused=stage.fused,
                style=style,
                drop_path=setting.drop_path * index / total,
                rngs=rngs,
            )
            features, index = stage.channels, index + 1
    blocks["top"] = style.conv(features, shape.top, activation=silu, rngs=rngs)
    blocks[PRE_LOGITS] = GlobalPool()
    return Backbone(blocks, shape.top)


def _timm(shape: Shape, path: tuple[str, ...]) -> str | None:
    match path:
        case ("head", "classifier"):
            return "classifier"
        case ("backbone", "stem", layer):
            return "conv_stem" if layer == "conv" else "bn1"
        case ("backbone", "top", layer):
            return "conv_head" if layer == "conv" else "bn2"
        case ("backbone", block, part, layer):
            layers = shape.stages[int(block.split(".")[1])].layers()
            return f"{block}.{timm_layer(layers, part, layer)}"
    return None


def _torchvision(shape: Shape, path: tuple[str, ...]) -> str | None:
    match path:
        case ("head", "classifier"):
            return "classifier.1"
        case ("backbone", "stem", layer):
            return f"features.0.{0 if layer == 'conv' else 1}"
        case ("backbone", "top", layer):
            return f"features.{len(shape.stages) + 1}.{0 if layer == 'conv' else 1}"
        case ("backbone", block, part, layer):
            _, number, repeat = block.split(".")
            inside = torchvision_layer(shape.stages[int(number)].layers(), part, layer)
            return f"features.{int(number) + 1}.{repeat}.{inside}"
    return None


def _keras(shape: Shape, path: tuple[str, ...]) -> str | LibraryLayer | None:
    """Returns the layer names of Keras, which has the padding and epsilon of `tf_efficientnet*`."""
    v2 = any(stage.fused for stage in shape.stages)
    match path:
        case _ if not shape.same:
            return None
        case ("pixels",):
            return None if v2 else "normalization"  # V2 normalizes by constants
        case ("head", "classifier"):
            return "predictions"
        case ("backbone", "stem" | "top" as block, layer):
            return f"{block}_{'conv' if layer == 'conv' else 'bn'}"
        case ("backbone", block, part, layer):
            _, number, repeat = block.split(".")
            stage, name = shape.stages[int(number)], f"block{int(number) + 1}{chr(97 + int(repeat))}"
            if part == "depthwise":
                known = f"{name}_dwconv{2 if v2 else ''}"
                return LibraryLayer((known,), depthwise=True) if layer == "conv" else f"{name}_bn"
            if part == "fused":
                part = "expand" if "project" in stage.layers() else "project"
            return f"{name}_{part}_{'bn' if layer == 'norm' else layer}"
    return None


def _transformers(shape: Shape, path: tuple[str, ...]) -> str | None:
    """Returns the layer names of Hugging Face, which has no V2 and pads odd images differently."""
    if any(stage.fused for stage in shape.stages):
        return None
    match path:
        case ("backbone", "stem", layer):
            return f"embeddings.{'convolution' if layer == 'conv' else 'batchnorm'}"
        case ("backbone", "top", layer):
            return f"encoder.top_{'conv' if layer == 'conv' else 'bn'}"
        case ("backbone", block, part, layer):
            _, number, repeat = block.split(".")
            index = sum(stage.count for stage in shape.stages[: int(number)]) + int(repeat)
            return f"encoder.blocks.{index}.{_TRANSFORMERS[part][layer]}"
    return None


_TRANSFORMERS = {
    "expand": {"conv": "expansion.expand_conv", "norm": "expansion.expand_bn"},
    "depthwise": {"conv": "depthwise_conv.depthwise_conv", "norm": "depthwise_conv.depthwise_norm"},
    "se": {"reduce": "squeeze_excite.reduce", "expand": "squeeze_excite.expand"},
    "project": {"conv": "projection.project_conv", "norm": "projection.project_bn"},
}
_B = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)
# width, depth, image size in pixels, dropout of the classifier
SCALES = {
    "b0": (1.0, 1.0, 224, 0.2),
    "b1": (1.0, 1.1, 240, 0.2),
    "b2": (1.1, 1.2, 260, 0.3),
    "b3": (1.2, 1.4, 300, 0.3),
    "b4": (1.4, 1.8, 380, 0.4),
    "b5": (1.6, 2.2, 456, 0.4),
    "b6": (1.8, 2.6, 528, 0.5),
    "b7": (2.0, 3.1, 600, 0.5),
}
# channels of the stem; blocks and channels of each stage; image size in pixels; dropout of the classifier
_V2 = {
    "s": (24, (2, 4, 4, 6, 9, 15), (24, 48, 64, 128, 160, 256), 384, 0.2),
    "m": (24, (3, 5, 5, 7, 14, 18, 5), (24, 48, 80, 160, 176, 304, 512), 480, 0.3),
    "l": (32, (4, 7, 7, 10, 19, 25, 7), (32, 64, 96, 192, 224, 384, 640), 480, 0.4),
    "b0": (32, (1, 2, 2, 3, 5, 8), (16, 32, 48, 96, 112, 192), 224, 0.2),
    "b1": (32, (2, 3, 3, 4, 6, 9), (16, 32, 48, 96, 112, 192), 240, 0.2),
    "b2": (32, (2, 3, 3, 4, 6, 10), (16, 32, 56, 104, 120, 208), 260, 0.3),
    "b3": (40, (2, 3, 3, 5, 7, 12), (16, 40, 56, 112, 136, 232), 300, 0.3),
}
_V2_TOP = {"b2": 1408, "b3": 1536}  # channels of the last convolution, if not 1280
_V2_STRIDES, _V2_EXPANSION = (1, 2, 2, 2, 1, 2, 1), (1, 4, 4, 4, 6, 6, 6)


def _variant(shape: Shape, size: int, dropout: float) -> Variant:
    preprocessing = Preprocessing(image_size=size, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    return Variant(shape=shape, preprocessing=preprocessing, dropout=dropout)


def _b(scale: str, epsilon: float, *, same: bool = False) -> Variant:
    width, depth, size, dropout = SCALES[scale]
    stages = tuple(
        dataclasses.replace(
            stage, count=math.ceil(stage.count * depth), channels=round_channels(stage.channels * width)
        )
        for stage in _B
    )
    shape = Shape(round_channels(32 * width), stages, round_channels(1280 * width), epsilon, same)
    return _variant(shape, size, dropout)


def _v2(scale: str, *, same: bool = False) -> Variant:
    stem, counts, channels, size, dropout = _V2[scale]
    stages = tuple(
        Stage(count, 3, strides, expansion, wide, fused=index < 3)
        for index, (count, strides, expansion, wide) in enumerate(
            zip(counts, _V2_STRIDES, _V2_EXPANSION, channels, strict=False)
        )
    )
    return _variant(Shape(stem, stages, _V2_TOP.get(scale, 1280), 1e-3, same), size, dropout)


FAMILY = Family(
    name="efficientnet",
    variants={
        **{f"efficientnet_{scale}": _b(scale, 1e-5) for scale in SCALES},
        **{f"tv_efficientnet_{scale}": _b(scale, 1e-3) for scale in ("b5", "b6", "b7")},
        **{f"tf_efficientnet_{scale}": _b(scale, 1e-3, same=True) for scale in SCALES},
        **{f"efficientnet_v2_{scale}": _v2(scale) for scale in "sml"},
        **{f"tf_efficientnetv2_{scale}": _v2(scale, same=True) for scale in _V2},
    },
    build=build,
    layer_names={
        "timm": _timm,
        "torchvision": _torchvision,
        "keras": _keras,
        "transformers": with_prefix("efficientnet", _transformers, classifier="classifier"),
        "transformers-base": _transformers,
    },
    keras_order=keras_order,
)
