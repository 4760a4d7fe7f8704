"""ResNeSt in timm."""

from originals.original import Original, timm_network
from transfer_jax.models import resnest


def _module(name: str, block: str) -> str:
    return {"stem": "maxpool", "pre_logits": "global_pool"}.get(block, block)


ORIGINALS = {(name, "timm"): Original(timm_network, _module) for name in resnest.FAMILY.variants}
