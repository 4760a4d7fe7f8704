"""MobileNetV2 and MobileNetV3 large and small.

Sources: Sandler et al. 2018, arXiv:1801.04381; Howard et al. 2019, arXiv:1905.02244. `mobilenet_v3_*` has
torchvision's epsilon and `mobilenetv3_*_100` timm's; V2 has the same epsilon in both. `keras_*` pad as
TensorFlow does.
"""

import dataclasses

import jax
from flax import nnx

from transfer_jax.models.backbone import PRE_LOGITS, Backbone
from transfer_jax.models.family import (
    HALF,
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
from transfer_jax.nn.activations import hard_swish
from transfer_jax.nn.layers import GlobalPool, Identity, Linear


@dataclasses.dataclass(frozen=True)
class Block:
    """An inverted residual block; see `MBConv`.

    Attributes:
        kernel_size: Side of the depthwise kernel, in pixels.
        wide: Number of channels after the expansion.
        channels: Number of output channels.
        squeezes: Whether it has squeeze-and-excitation.
        swish: Whether a V3 block has hard swish; otherwise ReLU.
        strides: Stride of the depthwise convolution.
    """

    kernel_size: int
    wide: int
    channels: int
    squeezes: bool = False
    swish: bool = False
    strides: int = 1


@dataclasses.dataclass(frozen=True)
class Shape:
    """The sizes of a MobileNet.

    Attributes:
        stem: Number of channels of the stem.
        stages: Blocks of each stage.
        top: Number of channels of the last convolution.
        hidden: Number of channels of V3's hidden layer; 0 for V2.
        epsilon: Value added to the variance by normalizations.
        same: Whether to pad as TensorFlow's `SAME` does; otherwise both sides equally.
    """

    stem: int
    stages: tuple[tuple[Block, ...], ...]
    top: int
    hidden: int = 0
    epsilon: float = 1e-5
    same: bool = False

    def layers(self, block: str) -> tuple[str, ...]:
        """Returns the names of the layers of a block `blocks.0.0` …, in order."""
        _, stage, repeat = block.split(".")
        made = self.stages[int(stage)][int(repeat)]
        narrow = self.before(block) == made.wide
        return (*(() if narrow else ("expand",)), "depthwise", *(("se",) if made.squeezes else ()), "project")

    def before(self, block: str) -> int:
        """Returns the number of input channels of a block."""
        position = self.position(block)
        flat = [self.stem, *(made.channels for stage in self.stages for made in stage)]
        return flat[position]

    def position(self, block: str) -> int:
        """Returns the number of blocks before a block."""
        _, stage, repeat = block.split(".")
        return sum(map(len, self.stages[: int(stage)])) + int(repeat)


class PooledDense(nnx.Module):
    """Global pooling, a dense layer and hard swish.

    It maps `(batch, height, width, in_features)` to `(batch, features)`.
    """

    def __init__(self, in_features: int, features: int, rngs: nnx.Rngs) -> None:
        self.dense = Linear(in_features, features, rngs=rngs)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        return hard_swish(self.dense(x.mean(axis=(1, 2))))


def build(shape: Shape, setting: Setting) -> Backbone:
    """Builds the blocks `stem`, `blocks.0.0` …, `top`, `conv_head` (V3 only), `pre_logits`.

    The backbone maps images `(batch, height, width, channels)` to features `(batch, shape.hidden or
    shape.top)`.
    """
    rngs, features, v3 = setting.rngs, shape.stem, shape.hidden > 0
    style = Style(
        activation=hard_swish if v3 else jax.nn.relu6,
        gate=jax.nn.hard_sigmoid,
        squeeze=jax.nn.relu,
        epsilon=shape.epsilon,
        same=shape.same,
    )
    relu = dataclasses.replace(style, activation=jax.nn.relu)
    total, index = sum(map(len, shape.stages)), 0
    blocks: dict[str, nnx.Module] = {
        "stem": style.conv(setting.channels, features, 3, strides=2, activation=style.activation, rngs=rngs)
    }
    for number, stage in enumerate(shape.stages):
        for repeat, block in enumerate(stage):
            blocks[f"blocks.{number}.{repeat}"] = MBConv(
                features,
                block.channels,
                block.kernel_size,
                block.strides,
                block.wide,
                squeezed=round_channels(block.wide / 4) if block.squeezes else 0,
                style=relu if v3 and not block.swish else style,
                drop_path=setting.drop_path * index / total,
                rngs=rngs,
            )
            features, index = block.channels, index + 1
    blocks["top"] = style.conv(features, shape.top, activation=style.activation, rngs=rngs)
    if v3:
        blocks["conv_head"] = PooledDense(shape.top, shape.hidden, rngs)
    blocks[PRE_LOGITS] = Identity() if v3 else GlobalPool()
    return Backbone(blocks, shape.hidden or shape.top)


def _timm(shape: Shape, path: tuple[str, ...]) -> str | LibraryLayer | None:
    v3 = shape.hidden > 0
    match path:
        case ("head", "classifier"):
            return "classifier"
        case ("backbone", "stem", layer):
            return "conv_stem" if layer == "conv" else "bn1"
        case ("backbone", "top", layer) if v3:
            return f"blocks.{len(shape.stages)}.0.{'conv' if layer == 'conv' else 'bn1'}"
        case ("backbone", "top", layer):
            return "conv_head" if layer == "conv" else "bn2"
        case ("backbone", "conv_head", "dense"):
            return LibraryLayer(("conv_head",), view=(1, 1, shape.top), flat=False)
        case ("backbone", block, part, layer):
            return f"{block}.{timm_layer(shape.layers(block), part, layer)}"
    return None


def _torchvision(shape: Shape, path: tuple[str, ...]) -> str | None:
    v3, top = shape.hidden > 0, sum(map(len, shape.stages)) + 1
    match path:
        case ("head", "classifier"):
            return "classifier.3" if v3 else "classifier.1"
        case ("backbone", "conv_head", "dense"):
            return "classifier.0"
        case ("backbone", "stem" | "top" as block, layer):
            return f"features.{0 if block == 'stem' else top}.{0 if layer == 'conv' else 1}"
        case ("backbone", block, part, layer):
            module, layers = f"features.{shape.position(block) + 1}", shape.layers(block)
            if v3:
                return f"{module}.{torchvision_layer(layers, part, layer)}"
            index = layers.index(part)
            if part == "project":
                return f"{module}.conv.{index + (layer == 'norm')}"
            return f"{module}.conv.{index}.{0 if layer == 'conv' else 1}"
    return None


def _keras(shape: Shape, path: tuple[str, ...]) -> str | LibraryLayer | None:
    v3 = shape.hidden > 0
    outer = ("conv", "conv_bn", "conv_1", "conv_1_bn") if v3 else ("Conv1", "bn_Conv1", "Conv_1", "Conv_1_bn")
    match path:
        case _ if not shape.same:
            return None
        case ("head", "classifier"):
            return LibraryLayer(("logits",), view=(1, 1, shape.hidden), flat=False) if v3 else "predictions"
        case ("backbone", "conv_head", "dense"):
            return LibraryLayer(("conv_2",), view=(1, 1, shape.top), flat=False)
        case ("backbone", "stem" | "top" as block, layer):
            return outer[2 * (block == "top") + (layer == "norm")]
        case ("backbone", block, part, layer):
            number = shape.position(block)
            name = f"{'expanded_conv' if v3 else 'block'}_{number}" if number else "expanded_conv"
            if part == "se":
                return f"{name}_squeeze_excite_conv{'' if layer == 'reduce' else '_1'}"
            if layer == "norm":
                return f"{name}_{part}_{'bn' if v3 else 'BN'}"
            return LibraryLayer((f"{name}_{part}",), depthwise=part == "depthwise")
    return None


def _transformers(shape: Shape, path: tuple[str, ...]) -> str | None:
    """Returns the layer names of Hugging Face, which has V2 only; its stem includes the first block."""
    if shape.hidden:
        return None
    match path:
        case ("backbone", "stem" | "top" as block, layer):
            return f"{'conv_stem.first_conv' if block == 'stem' else 'conv_1x1'}.{_LAYERS[layer]}"
        case ("backbone", block, part, layer):
            number = shape.position(block)
            inside = {"expand": "expand_1x1", "depthwise": "conv_3x3", "project": "reduce_1x1"}[part]
            return f"{f'layer.{number - 1}' if number else 'conv_stem'}.{inside}.{_LAYERS[layer]}"
    return None


_LAYERS = {"conv": "convolution", "norm": "normalization"}
# expansion, channels, blocks, strides of each stage
_V2 = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
_LARGE = (
    (Block(3, 16, 16),),
    (Block(3, 64, 24, strides=2), Block(3, 72, 24)),
    (Block(5, 72, 40, True, strides=2), Block(5, 120, 40, True), Block(5, 120, 40, True)),
    (
        Block(3, 240, 80, swish=True, strides=2),
        Block(3, 200, 80, swish=True),
        Block(3, 184, 80, swish=True),
        Block(3, 184, 80, swish=True),
    ),
    (Block(3, 480, 112, True, True), Block(3, 672, 112, True, True)),
    (Block(5, 672, 160, True, True, 2), Block(5, 960, 160, True, True), Block(5, 960, 160, True, True)),
)
_SMALL = (
    (Block(3, 16, 16, True, strides=2),),
    (Block(3, 72, 24, strides=2), Block(3, 88, 24)),
    (Block(5, 96, 40, True, True, 2), Block(5, 240, 40, True, True), Block(5, 240, 40, True, True)),
    (Block(5, 120, 48, True, True), Block(5, 144, 48, True, True)),
    (Block(5, 288, 96, True, True, 2), Block(5, 576, 96, True, True), Block(5, 576, 96, True, True)),
)


def _v2(width: float) -> Shape:
    stem = features = round_channels(32 * width)
    stages = []
    for expansion, channels, count, strides in _V2:
        stage = []
        for repeat in range(count):
            wide, channels_ = features * expansion, round_channels(channels * width)
            stage.append(Block(3, wide, channels_, strides=1 if repeat else strides))
            features = channels_
        stages.append(tuple(stage))
    return Shape(stem, tuple(stages), max(1280, round_channels(1280 * width)))


_SHAPES = {
    "mobilenet_v2": _v2(1.0),
    "mobilenetv2_050": _v2(0.5),
    "mobilenetv2_140": _v2(1.4),
    "mobilenet_v3_large": Shape(16, _LARGE, 960, 1280, 1e-3),
    "mobilenet_v3_small": Shape(16, _SMALL, 576, 1024, 1e-3),
    "mobilenetv3_large_100": Shape(16, _LARGE, 960, 1280),
    "mobilenetv3_small_100": Shape(16, _SMALL, 576, 1024),
    "keras_mobilenet_v2": dataclasses.replace(_v2(1.0), epsilon=1e-3, same=True),
    **{
        f"keras_mobilenet_v2_{round(100 * width):03}": dataclasses.replace(
            _v2(width), epsilon=1e-3, same=True
        )
        for width in (0.35, 0.5, 0.75, 1.3, 1.4)
    },
    "keras_mobilenet_v3_large": Shape(16, _LARGE, 960, 1280, 1e-3, same=True),
    "keras_mobilenet_v3_small": Shape(16, _SMALL, 576, 1024, 1e-3, same=True),
}
_EXPECTED = Preprocessing(mean=IMAGENET_MEAN, std=IMAGENET_STD)

FAMILY = Family(
    name="mobilenet",
    variants={
        name: Variant(
            shape=shape,
            preprocessing=Preprocessing(mean=HALF, std=HALF) if shape.same else _EXPECTED,
            dropout=0.2,
        )
        for name, shape in _SHAPES.items()
    },
    build=build,
    layer_names={
        "torchvision": _torchvision,
        "timm": _timm,
        "keras": _keras,
        "transformers": with_prefix("mobilenet_v2", _transformers, classifier="classifier"),
        "transformers-base": _transformers,
    },
    keras_order=keras_order,
)
