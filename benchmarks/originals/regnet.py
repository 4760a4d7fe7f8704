"""RegNetX and RegNetY in torchvision, timm and transformers."""

from typing import Any

from originals.original import LABELS, Original, in_transformers, timm_network, torchvision_network
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


def _transformers_network(name: str, size: int, kind: str) -> Any:
    import transformers

    shape = _VARIANTS[name].shape
    config = transformers.RegNetConfig(
        depths=list(shape.depths),
        hidden_sizes=list(shape.widths),
        groups_width=shape.group,
        layer_type="y" if shape.squeezes else "x",
        id2label=LABELS,
    )
    return getattr(transformers, f"RegNet{kind}")(config)


def _base(name: str, block: str) -> str:
    if block in ("stem", "pre_logits"):
        return {"stem": "embedder", "pre_logits": "pooler"}[block]
    stage, repeat = block.removeprefix("s").split(".b")
    return f"encoder.stages.{int(stage) - 1}.layers.{int(repeat) - 1}"


_SAME = {"regnet_y_800mf": "regnety_008_tv", "regnet_y_1_6gf": "regnety_016"}

ORIGINALS = {
    **{(name, "torchvision"): Original(torchvision_network, _torchvision) for name in _TORCHVISION},
    **{(name, "timm"): Original(timm_network, _timm) for name in _TIMM},
    **{(name, "timm"): Original(_same_in_timm, _timm) for name in _SAME},
    **in_transformers("regnet", _transformers_network, _base, _VARIANTS),
}
