"""ConvNeXt zepto to double extra large, and ConvNeXt V2 atto to huge.

Sources: Liu et al. 2022, arXiv:2201.03545; Woo et al. 2023, arXiv:2301.00808 (V2). The names of blocks and
networks are timm's: `…_ols` have a stem of overlapping convolutions, `…_mlp` a hidden layer after the
pooling.
"""

import dataclasses
import re

from flax import nnx

from transfer_jax.models.backbone import PRE_LOGITS, Backbone
from transfer_jax.models.convnext_layers import (
    ConvNeXtBlock,
    Downsample,
    Hidden,
    OverlapStem,
    PooledNorm,
    Shape,
    Stem,
)
from transfer_jax.models.family import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Family,
    LibraryLayer,
    Setting,
    Variant,
    with_prefix,
)
from transfer_jax.models.preprocessing import Preprocessing
from transfer_jax.nn.layers import Identity


def build(shape: Shape, setting: Setting) -> Backbone:
    """Builds the blocks `stem`, `stages.0.blocks.0` …, `stages.1.downsample`, …, `norm`, `pre_logits`.

    A network with a hidden layer has the block `hidden` before the last one. The backbone maps images
    `(batch, height, width, channels)` to features `(batch, shape.hidden or shape.widths[-1])`.
    """
    rngs, features, index = setting.rngs, shape.widths[0], 0
    stem = Stem if shape.stem == "patches" else OverlapStem
    blocks: dict[str, nnx.Module] = {"stem": stem(setting.channels, shape, rngs)}
    for stage, (depth, width) in enumerate(zip(shape.depths, shape.widths, strict=True)):
        if stage:
            blocks[f"stages.{stage}.downsample"] = Downsample(features, width, shape, rngs)
        for repeat in range(depth):
            rate = setting.drop_path * index / (sum(shape.depths) - 1)
            blocks[f"stages.{stage}.blocks.{repeat}"] = ConvNeXtBlock(width, shape, rate, rngs)
            index += 1
        features = width
    blocks["norm"] = PooledNorm(features, shape, rngs)
    if shape.hidden:
        blocks["hidden"] = Hidden(features, shape.hidden, rngs)
    blocks[PRE_LOGITS] = Identity()
    return Backbone(blocks, shape.hidden or features)


def _timm(shape: Shape, path: tuple[str, ...]) -> str | LibraryLayer | None:
    match path:
        case ("head", "classifier"):
            return "head.fc"
        case ("backbone", "norm", "norm"):
            return "head.norm"
        case ("backbone", "hidden", "fc"):
            return "head.pre_logits.fc"
        case ("backbone", "stem", layer):
            return f"stem.{_STEMS[shape.stem].index(layer)}"
        case ("backbone", block, layer) if block.endswith("downsample"):
            return f"{block}.{0 if layer == 'norm' else 1}"
        case ("backbone", block, "scale", "gamma"):
            return f"{block}.gamma"
        case ("backbone", block, "fc1" | "fc2" as layer) if shape.convolutional:
            width = shape.widths[int(block.split(".")[1])] * (4 if layer == "fc2" else 1)
            return LibraryLayer((f"{block}.mlp.{layer}",), view=(1, 1, width), flat=False)
        case ("backbone", block, layer):
            known = {"conv": "conv_dw", "norm": "norm"}
            return f"{block}.{known.get(layer, f'mlp.{layer}')}"
    return None


_STEMS = {
    "patches": ("conv", "norm"),
    "overlap": ("conv1", "conv2", "norm"),
    "tiered": ("conv1", "conv2", "norm"),
    "active": ("conv1", "gelu", "conv2", "norm"),
}


def _torchvision(shape: Shape, path: tuple[str, ...]) -> str | LibraryLayer | None:
    """Returns the layer names of torchvision, which has no V2."""
    match path:
        case ("head", "classifier"):
            return "classifier.2"
        case ("backbone", "norm", "norm"):
            return "classifier.0"
        case ("backbone", "stem", "conv" | "norm" as layer):
            return f"features.0.{0 if layer == 'conv' else 1}"
        case ("backbone", block, *layers) if block.startswith("stages."):
            _, stage, *rest = block.split(".")
            if rest == ["downsample"]:
                return f"features.{2 * int(stage)}.{0 if layers[0] == 'norm' else 1}"
            module = f"features.{2 * int(stage) + 1}.{rest[1]}"
            if layers == ["scale", "gamma"]:
                return LibraryLayer((f"{module}.layer_scale",), trailing=2)
            index = {"conv": 0, "norm": 2, "fc1": 3, "fc2": 5}.get(layers[0])
            return None if index is None else f"{module}.block.{index}"
    return None


_TRANSFORMERS = {"conv": "dwconv", "norm": "layernorm", "fc1": "pwconv1", "grn": "grn", "fc2": "pwconv2"}


def _transformers(shape: Shape, path: tuple[str, ...]) -> str | LibraryLayer | None:
    """Returns the layer names of Hugging Face's image classifier."""
    module = "convnextv2" if shape.v2 else "convnext"
    return with_prefix(module, _transformers_base, classifier="classifier")(shape, path)


def _transformers_base(shape: Shape, path: tuple[str, ...]) -> str | LibraryLayer | None:
    match path:
        case ("backbone", "norm", "norm"):
            return "layernorm"
        case ("backbone", "stem", "conv" | "norm" as layer):
            return f"embeddings.{'patch_embeddings' if layer == 'conv' else 'layernorm'}"
        case ("backbone", block, *layers) if block.startswith("stages."):
            _, stage, *rest = block.split(".")
            module = f"encoder.stages.{stage}"
            if rest == ["downsample"]:
                return f"{module}.downsampling_layer.{0 if layers[0] == 'norm' else 1}"
            module = f"{module}.layers.{rest[1]}"
            if layers == ["scale", "gamma"]:
                return f"{module}.layer_scale_parameter"
            return LibraryLayer(
                (f"{module}.{_TRANSFORMERS[layers[0]]}",), leading=3 if layers == ["grn"] else 0
            )
    return None


def _dinov3(shape: Shape, path: tuple[str, ...]) -> str | None:
    """Returns the layer names of DINOv3's ConvNeXt in Hugging Face, which has no classifier."""
    match path:
        case ("backbone", "norm", "norm"):
            return "layer_norm"
        case ("backbone", "stem", "conv" | "norm" as layer):
            return f"stages.0.downsample_layers.{0 if layer == 'conv' else 1}"
        case ("backbone", block, *layers) if block.startswith("stages."):
            _, stage, *rest = block.split(".")
            if rest == ["downsample"]:
                return f"stages.{stage}.downsample_layers.{0 if layers[0] == 'norm' else 1}"
            layer = "gamma" if layers == ["scale", "gamma"] else _DINOV3.get(layers[0])
            return layer and f"stages.{stage}.layers.{rest[1]}.{layer}"
    return None


_DINOV3 = {
    "conv": "depthwise_conv",
    "norm": "layer_norm",
    "fc1": "pointwise_conv1",
    "fc2": "pointwise_conv2",
}


def _keras(shape: Shape, path: tuple[str, ...]) -> str | None:
    """Returns the layer names of Keras, which begin with the name of the network."""
    name = shape.keras
    if not name:
        return None
    match path:
        case ("head", "classifier"):
            return f"{name}_head_dense"
        case ("backbone", "norm", "norm"):
            return f"{name}_head_layernorm"
        case ("backbone", "stem", layer):
            return f"{name}_stem/{name}_stem_{_KERAS[layer]}"
        case ("backbone", block, layer, *rest):
            stage, *repeat = re.findall(r"\d+", block)
            if not repeat:
                inside = f"{name}_downsampling_{{}}_{int(stage) - 1}"
                return f"{inside.format('block')}/{inside.format(_KERAS[layer])}"
            module = f"{name}_stage_{stage}_block_{repeat[0]}"
            known = {"conv": "depthwise_conv", "fc1": "pointwise_conv_1", "fc2": "pointwise_conv_2"}
            if rest == ["gamma"]:
                return f"{module}_layer_scale/gamma"
            return f"{module}_{known.get(layer, 'layernorm')}"
    return None


def _keras_order(shape: Shape, path: tuple[str, ...]) -> tuple[int, ...]:
    """Returns the position of a layer in its block; downsampling blocks begin with the normalization."""
    layers = ("norm", "conv") if path[1].endswith("downsample") else ("conv", "norm", "fc1", "fc2", "scale")
    return (layers.index(path[2]),)


_KERAS = {"conv": "conv", "norm": "layernorm"}
_TINY, _SMALL = (3, 3, 9, 3), (3, 3, 27, 3)


def _widths(first: int) -> tuple[int, int, int, int]:
    return first, 2 * first, 4 * first, 8 * first


_KERAS_SIZES = {
    "convnext_tiny": (_TINY, 96),
    "convnext_small": (_SMALL, 96),
    "convnext_base": (_SMALL, 128),
    "convnext_large": (_SMALL, 192),
    "convnext_xlarge": (_SMALL, 256),
}
# depths and channels of the first stage of the networks whose perceptrons are convolutions in timm
_CONVOLUTIONAL = {
    "atto": ((2, 2, 6, 2), 40),
    "femto": ((2, 2, 6, 2), 48),
    "pico": ((2, 2, 6, 2), 64),
    "nano": ((2, 2, 8, 2), 80),
}
_ZEPTO = Shape((2, 2, 4, 2), _widths(32), convolutional=True, simple=True)
_V1 = {
    **{name: Shape(depths, _widths(width), keras=name) for name, (depths, width) in _KERAS_SIZES.items()},
    "convnext_large_mlp": Shape(_SMALL, _widths(192), hidden=1536),
    "convnext_xxlarge": Shape((3, 4, 30, 3), _widths(384), epsilon=1e-5),
    "convnext_zepto_rms": _ZEPTO,
    "convnext_zepto_rms_ols": dataclasses.replace(_ZEPTO, stem="active"),
    **{
        f"convnext_{size}{ending}": Shape(depths, _widths(width), convolutional=True, stem=stem)
        for size, (depths, width) in _CONVOLUTIONAL.items()
        for ending, stem in (("", "patches"), ("_ols", "overlap" if size == "nano" else "tiered"))
    },
}
_V2 = {
    **{
        f"convnextv2_{size}": Shape(depths, _widths(width), v2=True, convolutional=True)
        for size, (depths, width) in _CONVOLUTIONAL.items()
    },
    "convnextv2_tiny": Shape(_TINY, _widths(96), v2=True),
    "convnextv2_base": Shape(_SMALL, _widths(128), v2=True),
    "convnextv2_large": Shape(_SMALL, _widths(192), v2=True),
    "convnextv2_huge": Shape(_SMALL, _widths(352), v2=True),
}

FAMILY = Family(
    name="convnext",
    variants={
        name: Variant(shape=shape, preprocessing=Preprocessing(mean=IMAGENET_MEAN, std=IMAGENET_STD))
        for name, shape in {**_V1, **_V2}.items()
    },
    build=build,
    layer_names={
        "timm": _timm,
        "torchvision": _torchvision,
        "transformers": _transformers,
        "transformers-base": _transformers_base,
        "transformers-dinov3": _dinov3,
        "keras": _keras,
    },
    keras_order=_keras_order,
)
