"""DINOv3 in timm and transformers."""

from typing import Any

from originals.original import Original, timm_network_of_size, tower
from originals.vit import timm_module
from transfer_jax.models import dinov3

_VARIANTS = dinov3.FAMILY.variants


def _network(name: str, size: int) -> Any:
    import transformers

    shape = _VARIANTS[name].shape
    config = transformers.DINOv3ViTConfig(
        **tower(shape, size),
        num_register_tokens=shape.registers,
        query_bias=bool(shape.bias),
        value_bias=bool(shape.bias),
        use_gated_mlp=shape.gated,
        hidden_act="silu" if shape.gated else "gelu",
    )
    return transformers.DINOv3ViTModel(config)


def _module(name: str, block: str) -> str:
    return {"embed": "embeddings", "pre_logits": ""}.get(block, block.replace("blocks", "model.layer"))


ORIGINALS = {
    **{
        (name, "timm"): Original(timm_network_of_size, timm_module)
        for name, variant in _VARIANTS.items()
        if variant.shape.pool == "mean"
    },
    **{
        (name, library): Original(_network, _module)
        for name, variant in _VARIANTS.items()
        if variant.shape.pool == "token"
        for library in ("transformers-base", "transformers-5")
    },
}
