"""The optimizer of a phase: a name of this package or of Optax, or an object."""

from typing import Any

from transfer_jax.freezing.object_field import ObjectField, takes
from transfer_jax.freezing.object_program import program_text
from transfer_jax.freezing.object_text import is_transformation, structure
from transfer_jax.freezing.optax_names import from_name, optimizer_name
from transfer_jax.freezing.python_object import PythonObject

OPTIMIZERS = ("adamw", "sgd", "rmsprop", "lion")
"""Optimizers with the `momentum` and the `weight_decay` of the phase."""
_PATHS = {
    "backbone/stem/conv/kernel": (3, 3, 3, 4),
    "backbone/stem/norm/scale": (4,),
    "backbone/stem/norm/bias": (4,),
    "backbone/blocks.1/attention/query/kernel": (4, 4),
    "head/classifier/kernel": (4, 2),
    "head/classifier/bias": (2,),
}
"""Paths and shapes of the parameters for which the program of an optimizer is traced."""


def has_own_rate(optimizer: str | PythonObject) -> bool:
    """Returns True for an `optax.GradientTransformation`, which contains its learning rate."""
    return isinstance(optimizer, PythonObject) and is_transformation(optimizer.value)


def at_unit_rate(optimizer: str | PythonObject) -> Any:
    """Returns an optimizer that is not one of `OPTIMIZERS` as an `optax.GradientTransformationExtraArgs`.

    A function of the learning rate, and an optimizer of Optax by name, is called with 1.

    Raises:
        MissingObjectError: If the object is missing; see `PythonObject.value`.
        TypeError: If the function returns no transformation.
    """
    if isinstance(optimizer, str):
        return _transformation(from_name(optimizer)(learning_rate=1.0))
    return _transformation(optimizer.value)


def _transformation(value: Any) -> Any:
    import optax

    if not is_transformation(value):
        made = value(1.0)
        if not is_transformation(made):
            raise TypeError(f"the optimizer {value!r} returned {made!r}, and no optax.GradientTransformation")
        value = made
    if hasattr(value, "gradient_transformation"):  # An `optax.MultiSteps`.
        value = value.gradient_transformation()
    return optax.with_extra_args_support(value)


def _program(value: Any) -> str:
    """Returns the text of the program of an optimizer on a few small parameters."""
    import jax
    import jax.numpy as jnp

    transformation = _transformation(value)
    params = {path: jax.ShapeDtypeStruct(shape, jnp.float32) for path, shape in _PATHS.items()}

    def update(params: Any, state: Any, loss: Any) -> Any:
        return transformation.update(params, state, params, value=loss)

    try:
        state, loss = jax.eval_shape(transformation.init, params), jax.ShapeDtypeStruct((), jnp.float32)
        return program_text(transformation.init, params) + program_text(update, params, state, loss)
    except Exception:  # It is made for other parameters, such as one with a label for each path of a model.
        return structure(value)


def _full_name(text: str) -> str:
    """Returns the full name of an optimizer of Optax; those of this package take no settings."""
    if (name := text.split("(")[0].strip()) in OPTIMIZERS:
        raise ValueError(f"{name} of this package takes no settings; write 'optax.{text}'")
    return optimizer_name(text)


OPTIMIZER = ObjectField(
    field="optimizer",
    kind="optimizer",
    names=OPTIMIZERS,
    example="optax.lamb(b1=0.9)",
    objects="an optax.GradientTransformation, or a function from the learning rate to one",
    full_name=_full_name,
    suits=lambda value: is_transformation(value) or takes(value, 1.0),
    program=_program,
)
"""The field `Phase.optimizer`."""
