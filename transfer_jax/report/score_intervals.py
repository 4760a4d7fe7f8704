"""Intervals of the scores of predictions, by the bootstrap over images."""

import numpy as np
from scipy.stats import binomtest

from transfer_jax.tasks import Task
from transfer_jax.tasks.top_predictions import Predicted, TopPredictions

LEVEL = 0.95
"""The probability of an interval."""
_RESAMPLES, _LEAST = 1000, 200
_LARGEST_WORK = 200_000_000
"""Largest number of predictions that all resamples together score."""


def score_intervals(
    task: Task, predictions: Predicted, labels: np.ndarray, *, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Returns 95 % intervals of the scores of a task by their names.

    That of the accuracy is Wilson's. The others are percentiles of the scores of 1,000 resamples of the
    images (Efron 1979), fewer for many images or classes, and none if fewer than 200 are affordable, or if
    only the most probable classes are known. A score
    that some resamples lack, such as ROC AUC without images of a class, uses the resamples that have it.

    Args:
        task: The task.
        predictions: The predictions, `(images, columns)`, or the most probable classes.
        labels: The labels, as the task has them.
        seed: Seed of the resamples.
    """
    found = {}
    size = _LARGEST_WORK if isinstance(predictions, TopPredictions) else predictions.size
    resamples = min(_RESAMPLES, _LARGEST_WORK // size)
    if resamples >= _LEAST:
        rng = np.random.default_rng(seed)
        drawn = [rng.integers(len(labels), size=len(labels)) for _ in range(resamples)]
        scores = [task.scores(predictions[rows], labels[rows]) for rows in drawn]
        for metric in task.metrics:
            values = [value for each in scores if (value := metric.of(each)) is not None]
            if len(values) >= _LEAST:
                low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
                found[metric.name] = (float(low), float(high))
    accuracy = task.scores(predictions, labels).get("accuracy")
    if accuracy is not None:
        right = round(accuracy * len(labels))
        interval = binomtest(right, len(labels)).proportion_ci(LEVEL, method="wilson")
        found["accuracy"] = (float(interval.low), float(interval.high))
    return found
