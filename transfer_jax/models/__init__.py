"""Image networks: backbones of named blocks, classifiers, and a registry of them by name."""

from typing import TYPE_CHECKING

from transfer_jax.lazy import lazy_names

if TYPE_CHECKING:
    from transfer_jax.models.backbone import PRE_LOGITS, Backbone, Classifier, Head
    from transfer_jax.models.preprocessing import Preprocessing
    from transfer_jax.models.registry import create_model, model_names

__all__ = ["PRE_LOGITS", "Backbone", "Classifier", "Head", "Preprocessing", "create_model", "model_names"]
__getattr__, __dir__ = lazy_names(__name__, __file__)
