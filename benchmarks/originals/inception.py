"""Inception V3 in torchvision, timm and Keras, without its auxiliary classifier."""

from typing import Any

from originals.keras_api import KerasOriginal, application
from originals.original import CLASSES, Original, timm_network


def _torchvision_network(name: str, size: int) -> Any:
    import torchvision

    return torchvision.models.inception_v3(
        weights=None, num_classes=CLASSES, aux_logits=False, init_weights=True
    )


def _torchvision(name: str, block: str) -> str:
    known = {"Conv2d_2b_3x3": "maxpool1", "Conv2d_4a_3x3": "maxpool2", "pre_logits": "avgpool"}
    return known.get(block, block)


def _timm(name: str, block: str) -> str:
    known = {"Conv2d_2b_3x3": "Pool1", "Conv2d_4a_3x3": "Pool2", "pre_logits": "global_pool"}
    return known.get(block, block)


def _keras_network(name: str, size: int) -> Any:
    return application("InceptionV3", size)


def _keras(name: str, block: str) -> str:
    """A network whose stem layers have no names."""
    known = {
        "Conv2d_1a_3x3": "activation",
        "Conv2d_2a_3x3": "activation_1",
        "Conv2d_2b_3x3": "max_pooling2d",
        "Conv2d_3b_1x1": "activation_3",
        "Conv2d_4a_3x3": "max_pooling2d_1",
        "pre_logits": "avg_pool",
    }
    return known.get(block) or f"mixed{_MIXED.index(block.removeprefix('Mixed_'))}"


_MIXED = ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c")
ORIGINALS = {
    ("keras_inception_v3", "keras"): KerasOriginal(_keras_network, _keras),
    ("inception_v3", "torchvision"): Original(_torchvision_network, _torchvision),
    ("inception_v3", "timm"): Original(timm_network, _timm),
}
