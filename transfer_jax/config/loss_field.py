"""The field `loss` of a config: a name, or a function of the outputs of the head and targets."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from transfer_jax.freezing.object_field import ObjectField, takes
from transfer_jax.freezing.object_program import program_text
from transfer_jax.freezing.object_text import is_transformation, structure
from transfer_jax.freezing.optax_names import from_name, loss_name
from transfer_jax.freezing.python_object import PythonObject
from transfer_jax.tasks import TASKS, Task

if TYPE_CHECKING:
    Loss = str | PythonObject | Callable[[Any, Any], Any]
else:  # The command line reads names only.
    Loss = str | PythonObject

_NAMES = ("auto", *dict.fromkeys(name for task in TASKS.values() for name in task.losses))
_SHAPE = (4, 3)
"""Shape `(batch, columns)` of the outputs and targets for which the program of a loss is traced."""


def loss_function(loss: Loss, task: Task) -> Callable[[Any, Any], Any]:
    """Returns the loss of each example as a function of outputs and targets, both `(batch, columns)`.

    Args:
        loss: The value of the field.
        task: The task.

    Raises:
        MissingObjectError: If the function is missing; see `PythonObject.value`.
        ValueError: If the task has no such loss, or the function does not return `(batch,)`.
    """
    if isinstance(loss, str) and loss in _NAMES:
        return task.loss(loss)
    import jax
    import jax.numpy as jnp

    if isinstance(loss, str):
        function = from_name(loss)
    else:
        function = loss.value if isinstance(loss, PythonObject) else loss
    rows = _SHAPE[0]
    outputs = jax.ShapeDtypeStruct((rows, task.outputs), jnp.float32)
    targets = jax.ShapeDtypeStruct((rows, len(task.names)), jnp.float32)
    found = getattr(jax.eval_shape(function, outputs, targets), "shape", None)
    if found != (rows,):
        raise ValueError(
            f"the loss {loss} must return the loss of each example, {(rows,)} for outputs {outputs.shape}, "
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
    objects="a function of outputs and targets, both (batch, columns), that returns (batch,)",
    full_name=loss_name,
    suits=lambda value: takes(value, 0, 0) and not is_transformation(value),
    program=_program,
)
"""The field `TrainConfig.loss`."""
