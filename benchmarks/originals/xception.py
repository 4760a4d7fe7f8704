"""Xception in timm and Keras."""

from typing import Any

from originals.keras_api import KerasOriginal, application
from originals.original import Original, timm_network


def _network(name: str, size: int) -> Any:
    return timm_network(f"legacy_{name}", size)


def _module(name: str, block: str) -> str:
    return {"pre_logits": "global_pool"}.get(block, block.replace("conv", "act"))


def _keras_network(name: str, size: int) -> Any:
    return application("Xception", size)


def _keras(name: str, block: str) -> str:
    """A network whose sums have no names."""
    known = {
        "conv1": "block1_conv1_act",
        "conv2": "block1_conv2_act",
        "conv3": "block14_sepconv1_act",
        "conv4": "block14_sepconv2_act",
        "pre_logits": "avg_pool",
        "block1": "add",
    }
    return known.get(block) or f"add_{int(block.removeprefix('block')) - 1}"


ORIGINALS = {
    ("xception", "timm"): Original(_network, _module),
    ("keras_xception", "keras"): KerasOriginal(_keras_network, _keras),
}
