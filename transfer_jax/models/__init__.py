"""Image networks: backbones of named blocks, classifiers, and a registry of them by name.

The names below are imported when they are first used, because they import Flax.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transfer_jax.models.backbone import PRE_LOGITS, Backbone, Classifier, Head
    from transfer_jax.models.preprocessing import Preprocessing
    from transfer_jax.models.registry import create_model, model_names

_MODULES = {
    "PRE_LOGITS": "backbone",
    "Backbone": "backbone",
    "Classifier": "backbone",
    "Head": "backbone",
    "Preprocessing": "preprocessing",
    "create_model": "registry",
    "model_names": "registry",
}

__all__ = ["PRE_LOGITS", "Backbone", "Classifier", "Head", "Preprocessing", "create_model", "model_names"]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
