"""Image networks: backbones of named blocks, classifiers, and a registry of them by name."""

from typing import TYPE_CHECKING

from transfer_jax.lazy import lazy_names

if TYPE_CHECKING:
    from transfer_jax.models.backbone import PRE_LOGITS, Backbone, Classifier, Head
    from transfer_jax.models.flax_functions import ModelFunction, linen_function, nnx_function
    from transfer_jax.models.preprocessing import Preprocessing
    from transfer_jax.models.registry import create_model, model_names

__all__ = [
    "PRE_LOGITS",
    "Backbone",
    "Classifier",
    "Head",
    "ModelFunction",
    "Preprocessing",
    "create_model",
    "linen_function",
    "model_names",
    "nnx_function",
]
__getattr__, __dir__ = lazy_names(__name__, __file__)
