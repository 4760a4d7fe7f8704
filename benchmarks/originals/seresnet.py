"""SE-ResNet, ECA-ResNet and ResNet-RS in timm."""

from originals.original import Original, timm_network
from transfer_jax.models import seresnet


def _module(name: str, block: str) -> str:
    return {"stem": "maxpool", "pre_logits": "global_pool"}.get(block, block)


# timm's antialiased networks take multiples of 32 only.
ORIGINALS = {
    (name, "timm"): Original(timm_network, _module, odd=160 if variant.shape.antialias else 0)
    for name, variant in seresnet.FAMILY.variants.items()
}
