"""BEiT in timm and transformers."""

from typing import Any

from originals.original import LABELS, Original, timm_network_of_size, tower
from transfer_jax.models import beit

_VARIANTS = beit.FAMILY.variants


def _timm(name: str, block: str) -> str:
    return {"embed": "pos_drop", "pre_logits": ""}.get(block, block)


def _network(name: str, size: int, kind: str = "ForImageClassification") -> Any:
    import transformers

    config = transformers.BeitConfig(
        **tower(_VARIANTS[name].shape, size),
        use_relative_position_bias=True,
        layer_scale_init_value=0.1,
        id2label=LABELS,
    )
    return getattr(transformers, f"Beit{kind}")(config)


def _base_network(name: str, size: int) -> Any:
    return _network(name, size, "Model")


def _base(name: str, block: str) -> str:
    known = {"embed": "embeddings", "fc_norm": "pooler.layernorm", "pre_logits": ""}
    return known.get(block, block.replace("blocks", "layers"))


def _module(name: str, block: str) -> str:
    module = _base(name, block)
    return f"beit.{module}" if module else ""


ORIGINALS = {
    **{(name, "timm"): Original(timm_network_of_size, _timm) for name in _VARIANTS},
    **{
        (name, library): Original(_network, _module)
        for name in _VARIANTS
        for library in ("transformers", "transformers-5")
    },
    **{(name, "transformers-base"): Original(_base_network, _base) for name in _VARIANTS},
}
