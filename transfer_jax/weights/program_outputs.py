"""Outputs of exported programs: logits, or predictions as `Task.predictions` computes them."""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp

from transfer_jax.tasks import MultiLabel, Ordinal, Regression, SingleLabel, Task

Output = Literal["logits", "predictions"]
"""The outputs of the head, or the predictions: probabilities, or quantities in their units."""


def program_outputs(task: Task, outputs: jax.Array, kind: Output) -> jax.Array:
    """Returns outputs of the head `(batch, outputs)` as a program returns them, float32; it can be traced.

    Args:
        task: The task.
        outputs: Outputs of the head.
        kind: `logits` returns them unchanged; `predictions` returns those of `Task.predictions`.
    """
    if kind == "logits":
        return outputs
    return _PREDICTIONS[type(task)](task, outputs)


def _regression(task: Any, outputs: jax.Array) -> jax.Array:
    constants = task.to_json()
    scale, mean = constants["scale"] or 1.0, constants["mean"] or 0.0
    return outputs * jnp.asarray(scale, outputs.dtype) + jnp.asarray(mean, outputs.dtype)


def _ordinal(task: Any, outputs: jax.Array) -> jax.Array:
    """Returns the probabilities of the continuation-ratio model, by products that ONNX has."""
    above = jax.nn.sigmoid(outputs)
    reached, classes = jnp.ones_like(above[:, :1]), []
    for index in range(above.shape[1]):
        step = above[:, index : index + 1]
        classes.append(reached * (1 - step))
        reached = reached * step
    return jnp.concatenate([*classes, reached], -1)


_PREDICTIONS: dict[type[Task], Callable[[Any, jax.Array], jax.Array]] = {
    SingleLabel: lambda task, outputs: jax.nn.softmax(outputs, -1),
    MultiLabel: lambda task, outputs: jax.nn.sigmoid(outputs),
    Regression: _regression,
    Ordinal: _ordinal,
}
