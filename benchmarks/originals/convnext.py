"""ConvNeXt in timm and torchvision."""

from originals.original import Original, timm_network, torchvision_network
from transfer_jax.models import convnext


def _timm(name: str, block: str) -> str:
    return {"norm": "head.norm", "pre_logits": "head.flatten"}.get(block, block)


def _torchvision(name: str, block: str) -> str:
    if block in ("stem", "norm", "pre_logits"):
        return {"stem": "features.0", "norm": "classifier.0", "pre_logits": "classifier.1"}[block]
    _, stage, *rest = block.split(".")
    if rest == ["downsample"]:
        return f"features.{2 * int(stage)}"
    return f"features.{2 * int(stage) + 1}.{rest[1]}"


ORIGINALS = {
    **{(name, "timm"): Original(timm_network, _timm) for name in convnext.FAMILY.variants},
    **{
        (name, "torchvision"): Original(torchvision_network, _torchvision)
        for name in ("convnext_tiny", "convnext_small", "convnext_base", "convnext_large")
    },
}
