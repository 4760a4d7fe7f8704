"""The networks of Hugging Face's transformers, with a classifier."""

from collections.abc import Callable
from typing import Any

from transfer_jax.models.efficientnet import SCALES
from transfer_jax.models.family import Variant
from transfer_jax.models.registry import family_of, variant_of
from transfer_jax.weights.constructors.constructor import Constructor, Exported, call

Config = tuple[str, dict[str, Any]]
"""The beginning of the names of the classes, such as `ResNet`, and the options of the config."""


def transformers_constructor(exported: Exported) -> Constructor | None:
    """Returns the constructor of a network in transformers, for the names of its files.

    Returns:
        The constructor, without code if the family is unknown here; None if transformers lacks the network.
    """
    return _constructor(exported, _LOAD_FILE)


def transformers5_constructor(exported: Exported) -> Constructor | None:
    """Returns the constructor of a network in transformers 5, for the names of its state dict."""
    return _constructor(exported, _LOAD_STATE)


_LOAD_FILE = "model = transformers.{kind}ForImageClassification.from_pretrained(\n    None, config=config, state_dict={arrays}\n)"  # noqa: E501
_LOAD_STATE = "model = transformers.{kind}ForImageClassification(config)\nmodel.load_state_dict({arrays})"


def _constructor(exported: Exported, load: str) -> Constructor | None:
    config_of = _CONFIGS.get(family_of(exported.model).name)
    found = config_of and config_of(exported.model, variant_of(exported.model), exported.image_size)
    if config_of and not found:
        return None
    code = ""
    if found:
        kind, options = found
        config = call(f"transformers.{kind}Config", **options, num_labels=exported.outputs)
        loaded = load.format(kind=kind, arrays=call("load_file", exported.file))
        code = (
            "import transformers\nfrom safetensors.torch import load_file\n\n"
            f"config = {config}\n{loaded}\nmodel.eval()"
        )
    return Constructor(code=code, module="transformers", runtime="torch")


def _resnet(name: str, variant: Variant, size: int) -> Config | None:
    if name not in {f"resnet{depth}" for depth in (18, 34, 50, 101, 152)}:
        return None
    depths, bottleneck = variant.shape.depths, variant.shape.bottleneck
    return "ResNet", {
        "depths": list(depths),
        "hidden_sizes": [64 * 2**stage * (4 if bottleneck else 1) for stage in range(4)],
        "layer_type": "bottleneck" if bottleneck else "basic",
    }


def _bit(name: str, variant: Variant, size: int) -> Config | None:
    if not variant.shape.bit:
        return None
    width = variant.shape.width
    return "Bit", {
        "depths": list(variant.shape.depths),
        "embedding_size": 64 * width,
        "hidden_sizes": [256 * width * 2**stage for stage in range(4)],
    }


def _regnet(name: str, variant: Variant, size: int) -> Config:
    return "RegNet", {
        "depths": list(variant.shape.depths),
        "hidden_sizes": list(variant.shape.widths),
        "groups_width": variant.shape.group,
        "layer_type": "y" if variant.shape.squeezes else "x",
    }


def _mobilenet(name: str, variant: Variant, size: int) -> Config | None:
    shape = variant.shape
    if shape.hidden:
        return None
    last = name.rpartition("_")[2]
    return "MobileNetV2", {
        "image_size": size,
        "depth_multiplier": int(last) / 100 if last.isdigit() else 1.0,
        "tf_padding": shape.same,
        "layer_norm_eps": shape.epsilon,
    }


def _efficientnet(name: str, variant: Variant, size: int) -> Config | None:
    """Returns the config of an EfficientNet, with the blocks whose images have an odd size."""
    if not name.startswith("tf_efficientnet_"):
        return None
    width, depth, *_ = SCALES[name.rpartition("_")[2]]
    strides = [
        stride for stage in variant.shape.stages for stride in (stage.strides, *(1,) * (stage.count - 1))
    ]
    side, odd = -(-size // 2), []
    for index, stride in enumerate(strides):
        odd += [index] if side % 2 else []
        side = -(-side // stride)
    return "EfficientNet", {
        "image_size": size,
        "width_coefficient": width,
        "depth_coefficient": depth,
        "depthwise_padding": odd,
        "hidden_dim": variant.shape.top,
    }


def _convnext(name: str, variant: Variant, size: int) -> Config | None:
    shape = variant.shape
    if shape.stem != "patches" or shape.simple or shape.hidden or shape.epsilon != 1e-6:
        return None
    kind = "ConvNextV2" if variant.shape.v2 else "ConvNext"
    return kind, {"depths": list(variant.shape.depths), "hidden_sizes": list(variant.shape.widths)}


def _vit(name: str, variant: Variant, size: int) -> Config | None:
    shape = variant.shape
    kinds = {"vit": "ViT", "deit": "DeiT"}
    if shape.kind not in kinds:
        return None
    return kinds[shape.kind], _tower(shape, size)


def _beit(name: str, variant: Variant, size: int) -> Config:
    options = {"use_relative_position_bias": True, "layer_scale_init_value": 0.1}
    return "Beit", {**_tower(variant.shape, size), **options}


def _tower(shape: Any, size: int) -> dict[str, Any]:
    """Returns the sizes of a vision transformer."""
    return {
        "hidden_size": shape.width,
        "num_hidden_layers": shape.depth,
        "num_attention_heads": shape.heads,
        "intermediate_size": shape.hidden or 4 * shape.width,
        "patch_size": shape.patch,
        "layer_norm_eps": shape.epsilon,
        "image_size": size,
    }


def _swin(name: str, variant: Variant, size: int) -> Config:
    shape = variant.shape
    return "Swin", {
        "image_size": size,
        "embed_dim": shape.width,
        "depths": list(shape.depths),
        "num_heads": list(shape.heads),
        "window_size": shape.window,
    }


def _swinv2(name: str, variant: Variant, size: int) -> Config:
    _, options = _swin(name, variant, size)
    return "Swinv2", {**options, "pretrained_window_sizes": list(variant.shape.pretrained)}


def _hiera(name: str, variant: Variant, size: int) -> Config | None:
    shape = variant.shape
    if shape.grid:  # there are no absolute windows
        return None
    return "Hiera", {
        "image_size": [size, size],
        "embed_dim": shape.width,
        "depths": list(shape.depths),
        "num_heads": [shape.heads << stage for stage in range(4)],
    }


_CONFIGS: dict[str, Callable[[str, Variant, int], Config | None]] = {
    "resnet": _resnet,
    "resnetv2": _bit,
    "regnet": _regnet,
    "mobilenet": _mobilenet,
    "efficientnet": _efficientnet,
    "convnext": _convnext,
    "vit": _vit,
    "swin": _swin,
    "swinv2": _swinv2,
    "hiera": _hiera,
    "beit": _beit,
}
"""The configs by the name of the family."""
