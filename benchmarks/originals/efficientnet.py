"""EfficientNet in timm and torchvision."""

from typing import Any

from originals.original import Original, timm_network, torchvision_network
from transfer_jax.models import efficientnet

_VARIANTS = efficientnet.FAMILY.variants
_TORCHVISION = (
    *(f"efficientnet_b{scale}" for scale in range(5)),
    *(f"tv_efficientnet_b{scale}" for scale in (5, 6, 7)),
    *(f"efficientnet_v2_{scale}" for scale in "sml"),
)
_TIMM = (
    *(f"efficientnet_b{scale}" for scale in range(8)),
    *(f"tf_efficientnet_b{scale}" for scale in range(8)),
    *(f"tf_efficientnetv2_{scale}" for scale in "sml"),
)


def _timm(name: str, block: str) -> str:
    return {"stem": "bn1", "top": "bn2", "pre_logits": "global_pool"}.get(block, block)


def _torchvision_network(name: str, size: int) -> Any:
    return torchvision_network(name.removeprefix("tv_"), size)


def _torchvision(name: str, block: str) -> str:
    stages = len(_VARIANTS[name].shape.stages)
    known = {"stem": "features.0", "top": f"features.{stages + 1}", "pre_logits": "avgpool"}
    if block in known:
        return known[block]
    _, stage, repeat = block.split(".")
    return f"features.{int(stage) + 1}.{repeat}"


ORIGINALS = {
    **{(name, "timm"): Original(timm_network, _timm) for name in _TIMM},
    **{(name, "torchvision"): Original(_torchvision_network, _torchvision) for name in _TORCHVISION},
}
