"""Temperature scaling: probabilities whose confidence agrees with their accuracy.

Logits are divided by one number, the temperature, which does not change the most probable class. Source: Guo
et al. 2017, "On Calibration of Modern Neural Networks", arXiv:1706.04599.
"""

from typing import Any

import numpy as np

from transfer_jax.tasks.classification_scores import log_loss
from transfer_jax.tasks.task import Task

LEAST = 20
"""Smallest number of validation images that choose a temperature."""
_LOWEST, _HIGHEST = 0.1, 10.0


def at_temperature(task: Task, predictions: np.ndarray, temperature: float) -> np.ndarray:
    """Returns probabilities `(n, columns)` whose logits are divided by a temperature.

    Args:
        task: A task with probabilities.
        predictions: Its probabilities.
        temperature: Above 1 for less confident ones.
    """
    return task.predictions(task.logits(predictions) / temperature)


def best_temperature(task: Task, predictions: object, labels: np.ndarray) -> float | None:
    """Returns the temperature with the smallest log loss of validation images.

    The log loss has one minimum, because it is convex in the inverse of the temperature.

    Args:
        task: The task.
        predictions: The predictions of the validation images, `(n, columns)`.
        labels: Their labels.

    Returns:
        The temperature; None if the task has no probabilities, if not all of them are known, if there are
        fewer than `LEAST` images, or if they set no limit to it, such as images that are all predicted right.
    """
    if not task.probabilistic or not isinstance(predictions, np.ndarray) or len(labels) < LEAST:
        return None
    from scipy.optimize import minimize_scalar  # Importing it is slow.

    logits = task.logits(predictions)

    def loss(log_temperature: float) -> float:
        found = task.predictions(logits / np.exp(log_temperature))
        if labels.ndim == 1:
            return log_loss(labels, found)
        of_truth = np.where(labels > 0, found, 1 - found).reshape(-1, 1)  # Each label is an example.
        return log_loss(np.zeros(of_truth.size, int), of_truth)

    limits = (np.log(_LOWEST), np.log(_HIGHEST))
    minimum: Any = minimize_scalar(loss, bounds=limits, method="bounded")
    found = float(np.exp(minimum.x))
    return found if 1.01 * _LOWEST < found < 0.99 * _HIGHEST else None
