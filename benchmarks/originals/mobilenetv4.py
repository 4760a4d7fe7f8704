"""MobileNetV4 in timm."""

from originals.original import Original, timm_network
from transfer_jax.models import mobilenetv4


def _module(name: str, block: str) -> str:
    stages = mobilenetv4.FAMILY.variants[name].shape.stages
    known = {
        "stem": "bn1",
        "top": f"blocks.{len(stages)}.0",
        "conv_head": "norm_head",
        "pre_logits": "flatten",
    }
    return known.get(block, block)


ORIGINALS = {(name, "timm"): Original(timm_network, _module) for name in mobilenetv4.FAMILY.variants}
