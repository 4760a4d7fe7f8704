"""transfer_jax: transfer learning in JAX. Pay only for what you unfreeze."""

from transfer_jax.config import TrainConfig, load_config
from transfer_jax.data import Augmentation
from transfer_jax.diagnostics import Diagnostics, diagnose
from transfer_jax.freezing import (
    Measured,
    Phase,
    Schedule,
    all_,
    between,
    blocks,
    controller,
    depth,
    feature_extraction,
    five_steps,
    from_,
    frozen_base,
    head,
    labels,
    match,
    multi_transform,
    role,
    top,
)
from transfer_jax.models import create_model, model_names
from transfer_jax.runs import Result, classify, fine_tune, fit, soup
from transfer_jax.weights import load_pretrained

__version__ = "0.1.0"

__all__ = [
    "Augmentation",
    "Diagnostics",
    "Measured",
    "Phase",
    "Result",
    "Schedule",
    "TrainConfig",
    "all_",
    "between",
    "blocks",
    "classify",
    "controller",
    "create_model",
    "depth",
    "diagnose",
    "feature_extraction",
    "fine_tune",
    "fit",
    "five_steps",
    "from_",
    "frozen_base",
    "head",
    "labels",
    "load_config",
    "load_pretrained",
    "match",
    "model_names",
    "multi_transform",
    "role",
    "soup",
    "top",
]
