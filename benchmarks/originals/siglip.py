"""The image towers of SigLIP in timm and transformers."""

from typing import Any

from originals.original import LABELS, Original, timm_network_of_size, tower
from transfer_jax.models import siglip

_VARIANTS = siglip.FAMILY.variants
_TIMM = tuple(name for name in _VARIANTS if name.startswith("vit"))
_TRANSFORMERS = tuple(name for name in _VARIANTS if not name.startswith("vit"))


def _timm(name: str, block: str) -> str:
    return {"embed": "norm_pre", "pre_logits": "fc_norm"}.get(block, block)


def _config(name: str, size: int) -> dict[str, Any]:
    return tower(_VARIANTS[name].shape, size)


def _network(name: str, size: int) -> Any:
    """The tower in a classifier, which does not read the attention pooling of the tower."""
    import transformers

    config = transformers.SiglipConfig(vision_config=_config(name, size), id2label=LABELS)
    return transformers.SiglipForImageClassification(config)


def _base_network(name: str, size: int) -> Any:
    import transformers

    return transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**_config(name, size)))


def _base(name: str, block: str) -> str:
    known = {"embed": "embeddings", "norm": "post_layernorm", "attn_pool": "head", "pre_logits": ""}
    return known.get(block, f"encoder.layers.{block.removeprefix('blocks.')}")


def _module(name: str, block: str) -> str:
    module = _base(name, block)
    return f"vision_model.{module}" if module else ""


ORIGINALS = {
    **{(name, "timm"): Original(timm_network_of_size, _timm) for name in _TIMM},
    **{(name, "transformers"): Original(_network, _module, ignore="^classifier") for name in _TRANSFORMERS},
    **{(name, "transformers-base"): Original(_base_network, _base) for name in _TRANSFORMERS},
}
