"""Predictions as JSON values."""

from typing import Any

import numpy as np

from transfer_jax.tasks import MultiLabel, Regression, Task


def answer(task: Task, prediction: np.ndarray, top: int = 0) -> dict[str, Any]:
    """Returns a prediction as JSON values.

    Args:
        task: The task.
        prediction: The prediction of one image, `(columns,)`.
        top: Largest number of probabilities; 0 returns all.

    Returns:
        `predicted`: the class, the list of labels, or the value of each quantity. Except for quantities, also
        `probabilities` by name, the largest first.
    """
    values = {name: float(value) for name, value in zip(task.names, prediction, strict=True)}
    if isinstance(task, Regression):
        return {"predicted": values}
    if isinstance(task, MultiLabel):
        chosen = prediction >= task.cutoffs
        predicted: Any = [name for name, on in zip(task.names, chosen, strict=True) if on]
    else:
        (predicted,) = task.answers(prediction[None])
    ordered = sorted(values.items(), key=lambda item: -item[1])
    return {"predicted": predicted, "probabilities": dict(ordered[: top or None])}
