"""Calibration: the expected calibration error and the reliability curve.

Source: Guo et al. 2017, "On Calibration of Modern Neural Networks", arXiv:1706.04599, with bins of equal
width.
"""

from typing import Any

import numpy as np

from transfer_jax.tasks import Task
from transfer_jax.tasks.temperature import at_temperature
from transfer_jax.tasks.top_predictions import Predicted, TopPredictions, predicted_class
from transfer_jax.tasks.top_predictions import confidence as confidence_of

BINS = 15
"""The number of bins in the paper."""


def reliability(predictions: Predicted, labels: np.ndarray, bins: int = BINS) -> dict[str, Any]:
    """Returns the expected calibration error and the reliability curve of the predicted class.

    Bins have equal width. A confidence on the border of two bins belongs to the lower one.

    Args:
        predictions: Probabilities, `(images, classes)`, or the most probable classes.
        labels: Indices of the true classes, `(images,)`; or, for several labels, 0 and 1 `(images, labels)`,
            and the curve is that of the probability of each label.
        bins: Number of bins between 0 and 1.

    Returns:
        A dict with `ece`, the mean difference between accuracy and confidence over the bins, weighted by
        their numbers of images; and `bins`, a list with `low` and `high`, the mean `confidence` and
        `accuracy` (None for an empty bin), and the number of `images` of each bin.
    """
    if labels.ndim == 2:  # Each label of each image is a prediction, and its probability the confidence.
        confidence, right = np.asarray(predictions).reshape(-1), labels.reshape(-1) > 0
    else:
        confidence = confidence_of(predictions)
        right = np.asarray(predicted_class(predictions) == labels)
    edges = np.linspace(0, 1, bins + 1)
    bin_of = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    error, found = 0.0, []
    for index in range(bins):
        inside = bin_of == index
        count = int(inside.sum())
        mean = float(confidence[inside].mean()) if count else None
        accuracy = float(right[inside].mean()) if count else None
        if mean is not None and accuracy is not None:
            error += count / len(right) * abs(accuracy - mean)
        low, high = (round(float(edge), 6) for edge in edges[index : index + 2])
        found.append({"low": low, "high": high, "confidence": mean, "accuracy": accuracy, "images": count})
    return {"ece": error, "bins": found}


def calibration_error(
    task: Task, predictions: Predicted, labels: np.ndarray, temperature: float | None
) -> str:
    """Returns a sentence on the expected calibration error, also with the temperature of the model.

    Args:
        task: A task with probabilities.
        predictions: Its probabilities, `(images, columns)`, or the most probable classes.
        labels: The labels of the images.
        temperature: The temperature that validation images chose; None if there is none.
    """
    text = f"Calibration error: {reliability(predictions, labels)['ece']:.1%}"
    if temperature is None or isinstance(predictions, TopPredictions):
        return text
    scaled = reliability(at_temperature(task, predictions, temperature), labels)["ece"]
    return f"{text}, with the temperature {temperature:.3g} (--calibrated): {scaled:.1%}"
