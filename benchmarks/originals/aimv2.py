"""AIMv2 in timm and transformers."""

from typing import Any

from originals.original import Original, timm_network_of_size, tower
from originals.vit import timm_module
from transfer_jax.models import aimv2

_VARIANTS = aimv2.FAMILY.variants


def _network(name: str, size: int) -> Any:
    import transformers

    config = transformers.Aimv2VisionConfig(**tower(_VARIANTS[name].shape, size), use_head=False)
    return transformers.Aimv2VisionModel(config)


def _base(name: str, block: str) -> str:
    known = {"embed": "embeddings", "norm": "rms_norm", "pre_logits": ""}
    return known.get(block, block.replace("blocks", "encoder.layers"))


ORIGINALS = {
    **{(name, "timm"): Original(timm_network_of_size, timm_module) for name in _VARIANTS},
    **{(name, "transformers-base"): Original(_network, _base) for name in _VARIANTS},
}
