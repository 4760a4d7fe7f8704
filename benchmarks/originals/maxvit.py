"""MaxViT and CoAtNet in timm."""

from originals.original import Original, timm_network_of_size
from transfer_jax.models import coatnet, maxvit


def _timm(name: str, block: str) -> str:
    hidden = {**maxvit.FAMILY.variants, **coatnet.FAMILY.variants}[name].shape.hidden
    if block in ("norm", "hidden", "pre_logits"):
        if not hidden:
            return "head.global_pool" if block == "pre_logits" else block
        return "head.flatten" if block == "norm" else "head.pre_logits"
    return block


# A second size of which the sides of windows are a 32nd, as well.
ORIGINALS = {
    (name, "timm"): Original(timm_network_of_size, _timm, odd=160)
    for family in (maxvit, coatnet)
    for name in family.FAMILY.variants
}
