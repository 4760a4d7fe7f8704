"""Vision transformers in timm and torchvision."""

from typing import Any

from originals.original import CLASSES, Original, timm_network_of_size
from transfer_jax.models import vit

_TORCHVISION = {
    "vit_base_patch16_224": "vit_b_16",
    "vit_base_patch32_224": "vit_b_32",
    "vit_large_patch16_224": "vit_l_16",
    "vit_large_patch32_224": "vit_l_32",
}


def _timm(name: str, block: str) -> str:
    return {"embed": "norm_pre", "pre_logits": "fc_norm"}.get(block, block)


def _torchvision_network(name: str, size: int) -> Any:
    import torchvision

    original = _TORCHVISION[name]
    return torchvision.models.get_model(original, weights=None, num_classes=CLASSES, image_size=size)


def _torchvision(name: str, block: str) -> str:
    known = {"embed": "encoder.dropout", "norm": "encoder.ln", "pre_logits": ""}
    return known.get(block, f"encoder.layers.encoder_layer_{block.removeprefix('blocks.')}")


ORIGINALS = {
    **{(name, "timm"): Original(timm_network_of_size, _timm) for name in vit.FAMILY.variants},
    **{(name, "torchvision"): Original(_torchvision_network, _torchvision) for name in _TORCHVISION},
}
