"""The image towers of SigLIP in timm and transformers."""

from typing import Any

from originals.original import LABELS, Original, timm_network_of_size, tower
from originals.vit import timm_module
from transfer_jax.models import siglip

_VARIANTS = siglip.FAMILY.variants
_TIMM = tuple(name for name in _VARIANTS if name.startswith("vit"))
_TRANSFORMERS = tuple(name for name in _VARIANTS if not name.startswith("vit"))


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


def base_module(name: str, block: str) -> str:
    """Returns the module of transformers' tower with the same output as a block."""
    known = {"embed": "embeddings", "norm": "post_layernorm", "attn_pool": "head", "pre_logits": ""}
    return known.get(block, f"encoder.layers.{block.removeprefix('blocks.')}")


def module(name: str, block: str) -> str:
    """Returns the module of transformers' classifier with the same output as a block."""
    inside = base_module(name, block)
    return f"vision_model.{inside}" if inside else ""


ORIGINALS = {
    **{(name, "timm"): Original(timm_network_of_size, timm_module) for name in _TIMM},
    **{(name, "transformers"): Original(_network, module, ignore="^classifier") for name in _TRANSFORMERS},
    **{(name, "transformers-base"): Original(_base_network, base_module) for name in _TRANSFORMERS},
}
