"""The image towers of CLIP in timm and transformers."""

from typing import Any

from originals.original import Original, timm_network_of_size, tower
from originals.vit import timm_module
from transfer_jax.models import clip

_VARIANTS = clip.FAMILY.variants


def _config(name: str, size: int) -> Any:
    import transformers

    shape = _VARIANTS[name].shape
    return transformers.CLIPVisionConfig(
        **tower(shape, size),
        hidden_act="quick_gelu" if "quickgelu" in name else "gelu",
    )


def _network(name: str, size: int) -> Any:
    import transformers

    return transformers.CLIPVisionModelWithProjection(_config(name, size))


def _base_network(name: str, size: int) -> Any:
    import transformers

    return transformers.CLIPVisionModel(_config(name, size))


def _base(name: str, block: str) -> str:
    """A network whose last normalization applies to the class token only."""
    known = {"embed": "pre_layrnorm", "norm": "", "pre_logits": "post_layernorm"}
    return known.get(block, f"encoder.layers.{block.removeprefix('blocks.')}")


def _module(name: str, block: str) -> str:
    module = _base(name, block)
    return f"vision_model.{module}" if module else ""


ORIGINALS = {
    **{(name, "timm"): Original(timm_network_of_size, timm_module) for name in _VARIANTS},
    **{
        (name, "transformers"): Original(_network, _module, ignore="^visual_projection") for name in _VARIANTS
    },
    **{(name, "transformers-base"): Original(_base_network, _base) for name in _VARIANTS},
}
