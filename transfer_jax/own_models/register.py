"""Registration of a user's model under a name, for configs and the command line."""

import dataclasses
from collections.abc import Callable
from typing import Any

from transfer_jax.config import TrainConfig
from transfer_jax.models import registry
from transfer_jax.models.backbone import Backbone
from transfer_jax.models.family import Family, Setting, Variant
from transfer_jax.nn.initializers import ShapeRngs
from transfer_jax.own_models.own_model import OwnModel, own_model
from transfer_jax.own_models.traced_backbone import TracedBackbone
from transfer_jax.own_models.traced_model import TracedModel


def register_model(name: str, model: Callable[[], Any] | Any) -> None:
    """Makes a model of the user's own available under a name, as `TrainConfig(model=name)`.

    Example:
        >>> register_model("mine", lambda: own_model(network, head="classifier"))

    Args:
        name: The name. An earlier model of the same name is replaced.
        model: The model, or a function without arguments that returns it: an `nnx.Module`, or the result of
            `own_model`.

    Raises:
        ValueError: If it is the name of a network of the package; or as `own_model`.
        TypeError: As `own_model`.
    """
    made = model() if callable(model) and not isinstance(model, OwnModel) and _is_function(model) else model
    registry.register_family(family_of_model(name, made if isinstance(made, OwnModel) else own_model(made)))


def with_own_model(config: TrainConfig, model: Any) -> TrainConfig:
    """Registers a model, and returns a config that names it.

    Args:
        config: The config. If its `model` is the default, the name is that of the model's type.
        model: An `nnx.Module`, or the result of `own_model`.

    Raises:
        ValueError: As `register_model`.
        TypeError: As `own_model`.
    """
    own = model if isinstance(model, OwnModel) else own_model(model)
    named = config.model != TrainConfig.__dataclass_fields__["model"].default
    name = config.model if named else own.name
    register_model(name, own)
    return dataclasses.replace(config, model=name)


def family_of_model(name: str, model: OwnModel) -> Family:
    """Returns the family of one network that a user's model is."""
    traced = TracedModel(model)

    def build(shape: Any, setting: Setting) -> Backbone:
        if setting.channels != 3 or setting.drop_path:
            raise ValueError(f"the model {name!r} is used as it is: channels and drop_path have no effect")
        return TracedBackbone(model, traced, abstract=isinstance(setting.rngs, ShapeRngs))

    return Family(
        name=name,
        variants={name: Variant(shape=None, preprocessing=model.preprocessing)},
        build=build,
        layer_names={},
        has_weights=True,
    )


def _is_function(model: Any) -> bool:
    from flax import nnx

    return not isinstance(model, nnx.Module)
