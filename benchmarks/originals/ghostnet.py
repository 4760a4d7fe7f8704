"""GhostNet and GhostNetV2 in timm."""

from originals.original import Original, timm_network
from transfer_jax.models import ghostnet


def _module(name: str, block: str) -> str:
    known = {"stem": "act1", "top": "blocks.9.0", "conv_head": "act2", "pre_logits": "flatten"}
    return known.get(block, block)


ORIGINALS = {(name, "timm"): Original(timm_network, _module) for name in ghostnet.FAMILY.variants}
