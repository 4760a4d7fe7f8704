"""DenseNet in torchvision, timm and Keras."""

import re
from typing import Any

from originals.keras_api import KerasOriginal, application
from originals.original import Original, timm_network, torchvision_network
from transfer_jax.models import densenet


def _torchvision(name: str, block: str) -> str:
    """A network whose ReLU after `norm5` is not a module."""
    known = {"stem": "features.pool0", "norm5": "", "pre_logits": ""}
    return known.get(block, f"features.{block}")


def _timm(name: str, block: str) -> str:
    known = {"stem": "features.pool0", "pre_logits": "global_pool"}
    return known.get(block, f"features.{block}")


def _keras_network(name: str, size: int) -> Any:
    return application(name.removeprefix("keras_").replace("densenet", "DenseNet"), size)


def _keras(name: str, block: str) -> str:
    known = {"stem": "pool1", "norm5": "relu", "pre_logits": "avg_pool"}
    if block in known:
        return known[block]
    stage, *repeat = re.findall(r"\d+", block)
    return f"conv{int(stage) + 1}_block{repeat[0]}_concat" if repeat else f"pool{int(stage) + 1}_pool"


_KERAS = [name for name in densenet.FAMILY.variants if name.startswith("keras_")]
ORIGINALS = {
    **{(name, "keras"): KerasOriginal(_keras_network, _keras) for name in _KERAS},
    **{
        (name, library): Original(make, module)
        for library, (make, module) in {
            "torchvision": (torchvision_network, _torchvision),
            "timm": (timm_network, _timm),
        }.items()
        for name in densenet.FAMILY.variants
        if name not in _KERAS
    },
}
