"""MobileNetV2 and V3 in torchvision and timm."""

from typing import Any

from originals.original import Original, timm_network, torchvision_network
from transfer_jax.models import mobilenet

_VARIANTS = mobilenet.FAMILY.variants
_TORCHVISION = ("mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small")
_TIMM = {
    "mobilenet_v2": "mobilenetv2_100",
    **{name: name for name in _VARIANTS if name.endswith(("0", "00"))},
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


ORIGINALS = {
    **{(name, "torchvision"): Original(torchvision_network, _torchvision) for name in _TORCHVISION},
    **{(name, "timm"): Original(_timm_network, _timm) for name in _TIMM},
}
