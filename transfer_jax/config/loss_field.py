"""The field `loss` of a config: a name, or a function of logits and targets."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from transfer_jax.freezing.object_field import ObjectField, takes
from transfer_jax.freezing.object_program import program_text
from transfer_jax.freezing.object_text import is_transformation, structure
from transfer_jax.freezing.optax_names import from_name, loss_name
from transfer_jax.freezing.python_object import PythonObject

if TYPE_CHECKING:
    Loss = str | PythonObject | Callable[[Any, Any], Any]
else:  # The command line reads names only.
    Loss = str | PythonObject

_NAMES = ("cross_entropy",)
_SHAPE = (4, 3)
"""Shape `(batch, classes)` of the logits for which the program of a loss is traced."""


def loss_function(loss: Loss) -> Callable[[Any, Any], Any]:
    """Returns the loss of each example as a function of logits and targets, both `(batch, classes)`.

    Args:
        loss: The value of the field.

    Raises:
        MissingObjectError: If the function is missing; see `PythonObject.value`.
        ValueError: If the function does not return `(batch,)`.
    """
    import jax
    import jax.numpy as jnp

    if isinstance(loss, str):
        function = from_name("optax.softmax_cross_entropy" if loss == "cross_entropy" else loss)
    else:
        function = loss.value if isinstance(loss, PythonObject) else loss
    logits = jax.ShapeDtypeStruct(_SHAPE, jnp.float32)
    found = getattr(jax.eval_shape(function, logits, logits), "shape", None)
    if found != _SHAPE[:1]:
        raise ValueError(
            f"the loss {loss} must return the loss of each example, {_SHAPE[:1]} for logits {_SHAPE}, "
            f"but returns {found}"
        )
    return function


def _program(value: Any) -> str:
    """Returns the text of the program of a loss."""
    import jax
    import jax.numpy as jnp

    logits = jax.ShapeDtypeStruct(_SHAPE, jnp.float32)
    try:
        return program_text(value, logits, logits)
    except Exception:
        return structure(value)


LOSS = ObjectField(
    field="loss",
    kind="loss",
    names=_NAMES,
    example="optax.losses.poly_loss_cross_entropy(epsilon=2.0)",
    objects="a function of logits and targets, both (batch, classes), that returns (batch,)",
    full_name=loss_name,
    suits=lambda value: takes(value, 0, 0) and not is_transformation(value),
    program=_program,
)
"""The field `TrainConfig.loss`."""
