"""RegNetX and RegNetY in torchvision and timm."""

from typing import Any

from originals.original import Original, timm_network, torchvision_network
from transfer_jax.models import regnet

_VARIANTS = regnet.FAMILY.variants
_TORCHVISION = [name for name in _VARIANTS if name.startswith("regnet_")]
_TIMM = [name for name in _VARIANTS if name not in _TORCHVISION]


def _torchvision(name: str, block: str) -> str:
    if block in ("stem", "pre_logits"):
        return {"stem": "stem", "pre_logits": "avgpool"}[block]
    stage, repeat = block.removeprefix("s").split(".b")
    return f"trunk_output.block{stage}.block{stage}-{int(repeat) - 1}"


def _timm(name: str, block: str) -> str:
    return {"pre_logits": "head.global_pool"}.get(block, block)


def _same_in_timm(name: str, size: int) -> Any:
    return timm_network(_SAME[name], size)


_SAME = {"regnet_y_800mf": "regnety_008_tv", "regnet_y_1_6gf": "regnety_016"}

ORIGINALS = {
    **{(name, "torchvision"): Original(torchvision_network, _torchvision) for name in _TORCHVISION},
    **{(name, "timm"): Original(timm_network, _timm) for name in _TIMM},
    **{(name, "timm"): Original(_same_in_timm, _timm) for name in _SAME},
}
