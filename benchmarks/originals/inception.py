"""Inception V3 in torchvision and timm, without its auxiliary classifier."""

from typing import Any

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


ORIGINALS = {
    ("inception_v3", "torchvision"): Original(_torchvision_network, _torchvision),
    ("inception_v3", "timm"): Original(timm_network, _timm),
}
