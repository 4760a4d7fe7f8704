"""The networks that features are extracted from: ours by name, workdir or object, and those of others."""

import os
from pathlib import Path
from typing import Any, NamedTuple

from flax import nnx

from transfer_jax.models.backbone import Classifier
from transfer_jax.models.flax_functions import ModelFunction, linen_function, nnx_function
from transfer_jax.models.preprocessing import Preprocessing
from transfer_jax.models.registry import create_model, family_of, model_names
from transfer_jax.runs.result import Result
from transfer_jax.weights.loading import load_pretrained
from transfer_jax.weights.saved_model import SavedModel
from transfer_jax.weights.specs import find_spec


class OpenedModel(NamedTuple):
    """A network with its arrays.

    Attributes:
        network: A classifier of ours in inference mode, or a function of someone else.
        preprocessing: The preprocessing that the weights need; None if it is unknown.
    """

    network: Classifier | ModelFunction
    preprocessing: Preprocessing | None = None


def open_model(model: Any) -> OpenedModel:
    """Returns a network in inference mode.

    Args:
        model: As for `extract_features`.

    Raises:
        ValueError: If no network has that name, and no folder either.
        TypeError: If it is nothing of the kind.
    """
    if isinstance(model, Result):
        model = model.workdir
    if isinstance(model, str | os.PathLike):
        return _by_name(os.fspath(model))
    if isinstance(model, Classifier):
        return OpenedModel(nnx.view(model, **_INFERENCE))
    if isinstance(model, nnx.Module):
        return OpenedModel(nnx_function(nnx.view(model, **_INFERENCE)))
    if isinstance(model, tuple) and len(model) == 3 and callable(model[0]):
        return OpenedModel(ModelFunction(*model))
    if isinstance(model, tuple) and len(model) == 2 and hasattr(model[0], "apply"):
        return OpenedModel(linen_function(*model))
    raise TypeError(
        "model must be a network's name, a workdir, an nnx.Module, (linen_module, variables), or (function, "
        f"params, state) as nnx_function and linen_function return them; got {type(model).__name__}"
    )


_INFERENCE = {"deterministic": True, "use_running_average": True, "raise_if_not_found": False}


def _by_name(name: str) -> OpenedModel:
    if name in model_names():
        spec = find_spec(name)
        size = spec.preprocessing.image_size
        model = create_model(name, 2, image_size=size, abstract_backbone=True)
        load_pretrained(model, spec)
        model.eval()
        return OpenedModel(model, spec.preprocessing)
    if "/" not in name and not Path(name).exists():
        family_of(name)  # Raises an error with the closest names.
    saved, model = SavedModel.load(Path(name))
    return OpenedModel(model, saved.preprocessing)
