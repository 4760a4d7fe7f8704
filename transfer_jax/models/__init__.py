"""What a network is."""

from transfer_jax.models.backbone import PRE_LOGITS, Backbone, Classifier, Head
from transfer_jax.models.preprocessing import Preprocessing
from transfer_jax.models.registry import create_model, model_names

__all__ = ["PRE_LOGITS", "Backbone", "Classifier", "Head", "Preprocessing", "create_model", "model_names"]
