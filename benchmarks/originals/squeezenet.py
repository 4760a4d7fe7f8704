"""SqueezeNet in torchvision, without its classifier, which ours leaves out."""

from typing import Any

from originals.original import Original, torchvision_network
from transfer_jax.models import squeezenet

_VARIANTS = squeezenet.FAMILY.variants


def _network(name: str, size: int) -> Any:
    from torch import nn

    network = torchvision_network(name, size)
    network.classifier = nn.Sequential(nn.AdaptiveAvgPool2d(1))
    return network


def _module(name: str, block: str) -> str:
    """The ReLU and the maximum of the stem, and the maximum of a block, are modules of their own there."""
    if block == "pre_logits":
        return "classifier"
    shape = _VARIANTS[name].shape
    position = shape.position(block)
    return f"features.{position + (block in shape.pooled) + (block == 'conv1')}"


ORIGINALS = {(name, "torchvision"): Original(_network, _module) for name in _VARIANTS}
