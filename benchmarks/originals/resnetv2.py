"""ResNet V2 in timm, and BiT in transformers."""

from typing import Any

from originals.original import LABELS, Original, in_transformers, timm_network
from transfer_jax.models import resnetv2

_VARIANTS = resnetv2.FAMILY.variants


def _module(name: str, block: str) -> str:
    return {"pre_logits": "head.global_pool"}.get(block, block)


def _transformers_network(name: str, size: int, kind: str) -> Any:
    import transformers

    shape = _VARIANTS[name].shape
    config = transformers.BitConfig(
        depths=list(shape.depths),
        embedding_size=64 * shape.width,
        hidden_sizes=[256 * shape.width * 2**stage for stage in range(4)],
        id2label=LABELS,
    )
    return getattr(transformers, f"Bit{kind}")(config)


def _base(name: str, block: str) -> str:
    known = {"stem": "embedder", "pre_logits": "pooler", "norm": "norm"}
    return known.get(block, f"encoder.{block.replace('blocks', 'layers')}")


_DAMPED = r"\bnorm3\.weight"
_BIT = [name for name, variant in _VARIANTS.items() if variant.shape.bit]
ORIGINALS = {
    **{(name, "timm"): Original(timm_network, _module, damped=_DAMPED) for name in _VARIANTS},
    **in_transformers("bit", _transformers_network, _base, _BIT, damped=_DAMPED),
}
