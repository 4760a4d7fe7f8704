"""transfer_jax: transfer learning in JAX. Pay only for what you unfreeze.

The public names are imported when they are first used.
"""

from typing import TYPE_CHECKING

from transfer_jax import former_names
from transfer_jax.lazy import lazy_names

if TYPE_CHECKING:
    from transfer_jax.config import TrainConfig, load_config
    from transfer_jax.data.augmentation import Augmentation
    from transfer_jax.data.examples import from_examples
    from transfer_jax.diagnostics.diagnosis import Diagnostics, diagnose
    from transfer_jax.features import FeatureCache, cache_features
    from transfer_jax.freezing import labels
    from transfer_jax.freezing.controllers import Measured, controller
    from transfer_jax.freezing.freeze_check import FrozenChangedError, frozen_unchanged
    from transfer_jax.freezing.function_split import Split, blocks_by_depth, divide_layers, split_frozen
    from transfer_jax.freezing.labels import multi_transform
    from transfer_jax.freezing.phase import Phase
    from transfer_jax.freezing.recipes import feature_extraction, five_steps, frozen_base
    from transfer_jax.freezing.schedule import Schedule
    from transfer_jax.freezing.selectors import all_, between, blocks, depth, from_, head, match, role, top
    from transfer_jax.freezing.trees import combine, partition
    from transfer_jax.models.flax_functions import linen_function, nnx_function
    from transfer_jax.models.preprocessing import Preprocessing
    from transfer_jax.models.registry import create_model, model_names
    from transfer_jax.own_models.own_model import OwnModel, own_model
    from transfer_jax.own_models.register import register_model
    from transfer_jax.runs import fit
    from transfer_jax.runs.extract_features import extract_features
    from transfer_jax.runs.model_soup import soup
    from transfer_jax.runs.predict import classify
    from transfer_jax.runs.push import push_to_hub
    from transfer_jax.runs.result import Result
    from transfer_jax.runs.trained_model import TrainedModel, from_pretrained
    from transfer_jax.search.fine_tune import fine_tune
    from transfer_jax.search.knn_probe import knn_probe
    from transfer_jax.search.linear_probe import linear_probe
    from transfer_jax.training import LoopCheckpoints, TrainState, make_train_step, next_phase
    from transfer_jax.weights.loading import load_pretrained

__version__ = "0.1.0"

__all__ = [
    "Augmentation",
    "Diagnostics",
    "FeatureCache",
    "FrozenChangedError",
    "LoopCheckpoints",
    "Measured",
    "OwnModel",
    "Phase",
    "Preprocessing",
    "Result",
    "Schedule",
    "Split",
    "TrainConfig",
    "TrainState",
    "TrainedModel",
    "all_",
    "between",
    "blocks",
    "blocks_by_depth",
    "cache_features",
    "classify",
    "combine",
    "controller",
    "create_model",
    "depth",
    "diagnose",
    "divide_layers",
    "extract_features",
    "feature_extraction",
    "fine_tune",
    "fit",
    "five_steps",
    "from_",
    "from_examples",
    "from_pretrained",
    "frozen_base",
    "frozen_unchanged",
    "head",
    "knn_probe",
    "labels",
    "linear_probe",
    "linen_function",
    "load_config",
    "load_pretrained",
    "make_train_step",
    "match",
    "model_names",
    "multi_transform",
    "next_phase",
    "nnx_function",
    "own_model",
    "partition",
    "push_to_hub",
    "register_model",
    "role",
    "soup",
    "split_frozen",
    "top",
]
__getattr__, __dir__ = lazy_names(__name__, __file__)
former_names.install()
