"""Models of the user's own: any Flax model or function as a backbone that `fit` trains."""

from transfer_jax.own_models.own_model import OwnModel, own_model
from transfer_jax.own_models.register import register_model, with_own_model

__all__ = ["OwnModel", "own_model", "register_model", "with_own_model"]
