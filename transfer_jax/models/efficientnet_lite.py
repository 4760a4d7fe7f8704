"""EfficientNet-Lite 0 to 4: EfficientNet with ReLU6 and without squeeze-and-excitation.

Source: Tan and Le 2019, arXiv:1905.11946; the Lite variants are those of the TensorFlow TPU repository
(models/official/efficientnet/lite, Apache-2.0). The stem, the last convolution, and the depths of the first
and last stages are not scaled.
"""

import math

import jax
from flax import nnx

from transfer_jax.models.backbone import PRE_LOGITS, Backbone
from transfer_jax.models.family import Family, Setting, Variant
from transfer_jax.models.mbconv import MBConv, Style, round_channels, timm_layer
from transfer_jax.models.preprocessing import Preprocessing
from transfer_jax.nn.layers import GlobalPool

# (blocks, kernel size, strides, expansion, channels) of each stage
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_STEM, _TOP = 32, 1280
_STYLE = Style(activation=jax.nn.relu6, epsilon=1e-3, same=True)


def _counts(depth: float) -> list[int]:
    """Returns the number of blocks of each stage; the first and the last stages are not scaled."""
    last = len(_STAGES) - 1
    return [
        count if index in (0, last) else math.ceil(count * depth) for index, (count, *_) in enumerate(_STAGES)
    ]


def stage_of(depth: float, index: int) -> tuple[int, int]:
    """Returns the stage of a block and its index in the stage.

    Args:
        depth: Factor of depth of the network.
        index: Index of the block in the network.

    Raises:
        IndexError: If the network has no such block.
    """
    for stage, count in enumerate(_counts(depth)):
        if index < count:
            return stage, index
        index -= count
    raise IndexError(index)


def build(shape: tuple[float, float], setting: Setting) -> Backbone:
    """Builds the blocks `stem`, `blocks.0` …, `top`, `pre_logits`.

    The backbone maps images `(batch, height, width, channels)` to features `(batch, 1280)`. The networks were
    pretrained with a stochastic depth of 0.2.

    Args:
        shape: Factors of width and of depth.
        setting: Options of the backbone.
    """
    (width, depth), rngs = shape, setting.rngs
    counts = _counts(depth)
    blocks: dict[str, nnx.Module] = {
        "stem": _STYLE.conv(setting.channels, _STEM, 3, strides=2, activation=jax.nn.relu6, rngs=rngs)
    }
    features, index = _STEM, 0
    for count, (_, kernel_size, strides, expansion, channels) in zip(counts, _STAGES, strict=True):
        channels = round_channels(channels * width)
        for repeat in range(count):
            blocks[f"blocks.{index}"] = MBConv(
                features,
                channels,
                kernel_size,
                strides if repeat == 0 else 1,
                features * expansion,
                style=_STYLE,
                drop_path=setting.drop_path * index / sum(counts),
                rngs=rngs,
            )
            features, index = channels, index + 1
    blocks["top"] = _STYLE.conv(features, _TOP, activation=jax.nn.relu6, rngs=rngs)
    blocks[PRE_LOGITS] = GlobalPool()
    return Backbone(blocks, _TOP)


_OUTER = {"stem": ("_conv_stem", "_bn0"), "top": ("_conv_head", "_bn1")}
_INNER = {
    "expand": ("_expand_conv", "_bn0"),
    "depthwise": ("_depthwise_conv", "_bn1"),
    "project": ("_project_conv", "_bn2"),
}


def _lukemelas(shape: tuple[float, float], path: tuple[str, ...]) -> str | None:
    """Returns the layer names of the PyTorch conversion of the TensorFlow weights."""
    match path:
        case ("head", "classifier"):
            return "_fc"
        case ("backbone", block, layer) if block in _OUTER:
            return _OUTER[block][layer == "norm"]
        case ("backbone", block, part, layer):
            return f"_{block}.{_INNER[part][layer == 'norm']}"
    return None


def _timm(shape: tuple[float, float], path: tuple[str, ...]) -> str | None:
    match path:
        case ("head", "classifier"):
            return "classifier"
        case ("backbone", "stem", layer):
            return "conv_stem" if layer == "conv" else "bn1"
        case ("backbone", "top", layer):
            return "conv_head" if layer == "conv" else "bn2"
        case ("backbone", block, part, layer):
            stage, repeat = stage_of(shape[1], int(block.removeprefix("blocks.")))
            expands = _STAGES[stage][3] > 1
            layers = ("expand", "depthwise", "project") if expands else ("depthwise", "project")
            return f"blocks.{stage}.{repeat}.{timm_layer(layers, part, layer)}"
    return None


def _variant(width: float, depth: float, image_size: int, dropout: float) -> Variant:
    preprocessing = Preprocessing(
        image_size=image_size,
        crop_fraction=image_size / (image_size + 32),
        interpolation="bicubic",
        mean=(127.0, 127.0, 127.0),
        std=(128.0, 128.0, 128.0),
    )
    return Variant(shape=(width, depth), preprocessing=preprocessing, dropout=dropout)


FAMILY = Family(
    name="efficientnet_lite",
    variants={
        "efficientnet_lite0": _variant(1.0, 1.0, 224, 0.2),
        "efficientnet_lite1": _variant(1.0, 1.1, 240, 0.2),
        "efficientnet_lite2": _variant(1.1, 1.2, 260, 0.3),
        "efficientnet_lite3": _variant(1.2, 1.4, 280, 0.3),
        "efficientnet_lite4": _variant(1.4, 1.8, 300, 0.3),
        "efficientnet_lite_tiny": _variant(0.25, 0.3, 32, 0.0),  # for tests
    },
    build=build,
    layer_names={"efficientnet-pytorch": _lukemelas, "timm": _timm},
)
