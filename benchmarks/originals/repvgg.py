"""RepVGG in timm."""

from originals.original import Original, timm_network
from transfer_jax.models import repvgg


def _module(name: str, block: str) -> str:
    return {"pre_logits": "head.global_pool"}.get(block, block)


ORIGINALS = {(name, "timm"): Original(timm_network, _module) for name in repvgg.FAMILY.variants}
