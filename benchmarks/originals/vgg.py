"""VGG in torchvision and timm."""

from originals.original import Original, timm_network, torchvision_network
from transfer_jax.models import vgg


def _module(name: str, block: str) -> str:
    if block == "pre_logits":
        return ""
    counts, _, norm = vgg.FAMILY.variants[name].shape
    index = int(block.removeprefix("block"))
    return f"features.{(3 if norm else 2) * sum(counts[:index]) + index - 1}"


ORIGINALS = {
    (name, library): Original(make, _module)
    for library, make in {"torchvision": torchvision_network, "timm": timm_network}.items()
    for name in vgg.FAMILY.variants
}
