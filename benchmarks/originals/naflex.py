"""SigLIP 2 for images of any aspect ratio, in timm and transformers."""

from typing import Any

from originals.original import CLASSES, LABELS, Original, tower
from originals.siglip import base_module, module
from originals.vit import timm_module
from transfer_jax.models import naflex

_VARIANTS = naflex.FAMILY.variants


def _in_timm(name: str, size: int) -> Any:
    import timm

    return timm.create_model(name, pretrained=False, num_classes=CLASSES)


def _config(name: str, size: int) -> dict[str, Any]:
    return {**tower(_VARIANTS[name].shape, size), "num_patches": 256}


def _patches(network: Any, patch: int) -> Any:
    """Makes a network take images, from which it is given the patches as its preprocessing makes them."""
    import torch

    def cut(_: Any, inputs: Any, keywords: Any) -> Any:
        (images,) = inputs
        batch, channels, height, width = images.shape
        rows, columns = height // patch, width // patch
        x = images.reshape(batch, channels, rows, patch, columns, patch).permute(0, 2, 4, 3, 5, 1)
        found = {
            "pixel_values": x.reshape(batch, rows * columns, -1),
            "pixel_attention_mask": torch.ones(batch, rows * columns, dtype=torch.long),
            "spatial_shapes": torch.tensor([[rows, columns]] * batch),
        }
        return (), {**keywords, **found}

    network.register_forward_pre_hook(cut, with_kwargs=True)
    return network


def _network(name: str, size: int) -> Any:
    import transformers

    config = transformers.Siglip2Config(vision_config=_config(name, size), id2label=LABELS)
    network = transformers.Siglip2ForImageClassification(config)
    return _patches(network, _VARIANTS[name].shape.patch)


def _base_network(name: str, size: int) -> Any:
    import transformers

    network = transformers.Siglip2VisionModel(transformers.Siglip2VisionConfig(**_config(name, size)))
    return _patches(network, _VARIANTS[name].shape.patch)


ORIGINALS = {
    **{(name, "timm"): Original(_in_timm, timm_module) for name in _VARIANTS},
    **{(name, "transformers"): Original(_network, module, ignore="^classifier") for name in _VARIANTS},
    **{(name, "transformers-base"): Original(_base_network, base_module) for name in _VARIANTS},
}
