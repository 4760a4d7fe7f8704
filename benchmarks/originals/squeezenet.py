"""SqueezeNet in torchvision, without its classifier, which ours does not have."""

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
    """A network whose ReLU and max pooling of the stem, and max pooling of a block, are separate modules."""
    if block == "pre_logits":
        return "classifier"
    shape = _VARIANTS[name].shape
    position = shape.position(block)
    return f"features.{position + (block in shape.pooled) + (block == 'conv1')}"


ORIGINALS = {(name, "torchvision"): Original(_network, _module) for name in _VARIANTS}
