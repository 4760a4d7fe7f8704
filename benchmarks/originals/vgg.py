"""VGG in torchvision, timm and Keras."""

from typing import Any

from originals.keras_api import KerasOriginal, application
from originals.original import Original, timm_network, torchvision_network
from transfer_jax.models import vgg


def _module(name: str, block: str) -> str:
    if block == "pre_logits":
        return ""
    counts, _, norm = vgg.FAMILY.variants[name].shape
    index = int(block.removeprefix("block"))
    return f"features.{(3 if norm else 2) * sum(counts[:index]) + index - 1}"


def _keras_network(name: str, size: int) -> Any:
    """A network whose classifier has weights for one image size only."""
    return application(
        name.removeprefix("keras_").upper(),
        size,
        top=size == vgg.FAMILY.variants[name].preprocessing.image_size,
    )


def _keras(name: str, block: str) -> str:
    return "" if block == "pre_logits" else f"{block}_pool"


ORIGINALS = {
    **{
        (name, library): Original(make, _module)
        for library, make in {"torchvision": torchvision_network, "timm": timm_network}.items()
        for name in vgg.FAMILY.variants
        if not name.startswith("keras_")
    },
    **{(name, "keras"): KerasOriginal(_keras_network, _keras) for name in ("keras_vgg16", "keras_vgg19")},
}
