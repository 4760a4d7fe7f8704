"""The networks that features are extracted from: ours by name, workdir or object, and those of others."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from flax import nnx

from transfer_jax.models.backbone import Classifier
from transfer_jax.models.flax_functions import ModelFunction, linen_function, nnx_function
from transfer_jax.models.preprocessing import Preprocessing
from transfer_jax.models.registry import create_model, family_of, model_names, variant_of
from transfer_jax.own_models.own_model import OwnModel
from transfer_jax.runs.result import Result
from transfer_jax.weights.loading import load_pretrained
from transfer_jax.weights.saved_model import SavedModel
from transfer_jax.weights.specs import find_spec


class OpenedModel(NamedTuple):
    """A network with its arrays.

    Attributes:
        network: A classifier in inference mode, or a function.
        preprocessing: The preprocessing that the weights need; None if it is unknown.
        blocks: The block of each parameter of a function; None if it is not known.
        last: Whether the features that a head reads are those behind the last block.
    """

    network: Classifier | ModelFunction
    preprocessing: Preprocessing | None = None
    blocks: Mapping[str, str] | None = None
    last: bool = False


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
    if isinstance(model, OwnModel):
        function = ModelFunction(model.modes(frozenset(), "frozen"), model.params, model.state)
        preprocessing = None if model.takes_arrays else model.preprocessing
        return OpenedModel(function, preprocessing, model.groups, last=True)
    if isinstance(model, Classifier):
        return OpenedModel(nnx.view(model, **_INFERENCE))
    if isinstance(model, nnx.Module):
        return OpenedModel(nnx_function(nnx.view(model, **_INFERENCE)))
    if isinstance(model, tuple) and len(model) == 3 and callable(model[0]):
        return OpenedModel(ModelFunction(*model))
    if isinstance(model, tuple) and len(model) == 2 and hasattr(model[0], "apply"):
        return OpenedModel(linen_function(*model))
    raise TypeError(
        "model must be a network's name, a workdir, a Classifier, an OwnModel, an nnx.Module, (linen_module, "
        "variables), or (function, params, state) as nnx_function and linen_function return them; got "
        f"{type(model).__name__}"
    )


_INFERENCE = {"deterministic": True, "use_running_average": True, "raise_if_not_found": False}


def _by_name(name: str) -> OpenedModel:
    is_folder = name not in model_names() and ("/" in name or Path(name).exists())
    if is_folder:
        saved, model = SavedModel.load(Path(name))
        return OpenedModel(model, saved.preprocessing)
    if family_of(name).has_weights:  # A registered model of the user's own.
        model, preprocessing = create_model(name, 2), variant_of(name).preprocessing
    else:
        spec = find_spec(name)
        preprocessing = spec.preprocessing
        model = create_model(name, 2, image_size=preprocessing.image_size, abstract_backbone=True)
        load_pretrained(model, spec)
    model.eval()
    return OpenedModel(model, preprocessing)
