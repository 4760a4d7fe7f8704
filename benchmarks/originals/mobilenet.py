"""MobileNetV2 and V3 in torchvision, timm and Keras, and V2 in transformers."""

from typing import Any

from originals.keras_api import KerasOriginal, application
from originals.original import LABELS, Original, in_transformers, timm_network, torchvision_network
from transfer_jax.models import mobilenet

_VARIANTS = mobilenet.FAMILY.variants
_TORCHVISION = ("mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small")
_TIMM = {
    "mobilenet_v2": "mobilenetv2_100",
    **{name: name for name in _VARIANTS if name.startswith("mobilenet") and name.endswith("0")},
}


def _timm_network(name: str, size: int) -> Any:
    return timm_network(_TIMM[name], size)


def _timm(name: str, block: str) -> str:
    shape = _VARIANTS[name].shape
    if shape.hidden:
        known = {"top": f"blocks.{len(shape.stages)}.0", "conv_head": "act2", "pre_logits": "flatten"}
    else:
        known = {"top": "bn2", "pre_logits": "global_pool"}
    return {"stem": "bn1", **known}.get(block, block)


def _torchvision(name: str, block: str) -> str:
    shape = _VARIANTS[name].shape
    if block.startswith("blocks."):
        return f"features.{shape.position(block) + 1}"
    top = sum(map(len, shape.stages)) + 1
    known = {"stem": "features.0", "top": f"features.{top}", "conv_head": "classifier.1", "pre_logits": ""}
    return known[block]


_KERAS = {
    **{name: "MobileNetV2" for name in _VARIANTS if name.startswith("keras_mobilenet_v2")},
    "keras_mobilenet_v3_large": "MobileNetV3Large",
    "keras_mobilenet_v3_small": "MobileNetV3Small",
}


def _keras_network(name: str, size: int) -> Any:
    options: dict[str, Any] = {"include_preprocessing": False} if "_v3_" in name else {"alpha": _width(name)}
    return application(_KERAS[name], size, **options)


def _width(name: str) -> float:
    """Returns the width multiplier of a V2."""
    *_, last = name.split("_")
    return int(last) / 100 if last.isdigit() else 1.0


def _keras(name: str, block: str) -> str:
    """A network whose activations and pooling have no names."""
    shape = _VARIANTS[name].shape
    v3 = shape.hidden > 0
    if not block.startswith("blocks."):
        known = {"stem": "conv_bn>", "top": "conv_1_bn>", "conv_head": "conv_2>", "pre_logits": ""}
        return known[block] if v3 else {"stem": "Conv1_relu", "top": "out_relu", "pre_logits": ""}[block]
    number = shape.position(block)
    _, stage, repeat = block.split(".")
    made = shape.stages[int(stage)][int(repeat)]
    residual = made.strides == 1 and shape.before(block) == made.channels
    prefix = f"{'expanded_conv' if v3 else 'block'}_{number}" if number else "expanded_conv"
    return f"{prefix}_{'add' if residual else 'project_bn' if v3 else 'project_BN'}"


def _transformers_network(name: str, size: int, kind: str) -> Any:
    import transformers

    shape, width = _VARIANTS[name].shape, _width(name)
    config = transformers.MobileNetV2Config(
        image_size=size,
        depth_multiplier=width,
        tf_padding=shape.same,
        layer_norm_eps=shape.epsilon,
        id2label=LABELS,
    )
    return getattr(transformers, f"MobileNetV2{kind}")(config)


def _base(name: str, block: str) -> str:
    known = {
        "stem": "conv_stem.first_conv",
        "top": "conv_1x1",
        "pre_logits": "pooler",
        "blocks.0.0": "conv_stem",
    }
    return known.get(block) or f"layer.{_VARIANTS[name].shape.position(block) - 1}"


_V2 = [name for name, variant in _VARIANTS.items() if not variant.shape.hidden]
ORIGINALS = {
    **{(name, "keras"): KerasOriginal(_keras_network, _keras) for name in _KERAS},
    **{(name, "torchvision"): Original(torchvision_network, _torchvision) for name in _TORCHVISION},
    **{(name, "timm"): Original(_timm_network, _timm) for name in _TIMM},
    **in_transformers("mobilenet_v2", _transformers_network, _base, _V2),
}
