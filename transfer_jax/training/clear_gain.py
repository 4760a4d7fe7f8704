"""The gain of a phase in a score of the validation images, and its standard error.

A phase after the first is kept only if its gain is clear, more than two standard errors: a smaller one can
as well be luck of the validation images, and the simpler model is the safer choice. Breiman et al. 1984,
"Classification and Regression Trees", section 3.4.3, use one standard error. Few images have most of a log
loss, though: if a single image improves, and no other one changes, the gain is exactly one standard error,
however many images there are. Two standard errors need at least four such images. For the same reason, a few
sure mistakes can hide the gain of many images; a clear gain in the headline score of the task, such as the
accuracy, counts as well, as long as the log loss is not worse.

The error is that of a paired difference, estimated by the jackknife that leaves out groups of images
(Quenouille 1956; Shao & Wu 1989): it is valid for means over images, such as the log loss, and for other
smooth scores, such as ROC AUC. With a group for each image and a mean, it is the usual standard error of a
mean.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from transfer_jax.tasks import Metric, Task

CLEAR = 2
"""Number of standard errors that a clear gain is larger than."""
GROUPS = 50
"""Largest number of groups of images that are left out in turn."""


def values_without_groups(
    task: Task,
    metrics: Sequence[Metric],
    predictions: Any,
    labels: np.ndarray,
    weights: np.ndarray | None = None,
) -> np.ndarray:
    """Returns the values of scores without each group of images in turn; NaN where a score has none.

    The groups have the same classes as far as possible, so that a score has a value without any of them.

    Args:
        task: The task.
        metrics: The scores.
        predictions: Predictions, `(images, columns)`, or the most probable classes of many images.
        labels: Labels of the images.
        weights: Weight of each image; None weights all equally.

    Returns:
        float64 `(scores, groups)`.
    """
    count = min(GROUPS, len(labels))
    group = np.empty(len(labels), np.int64)
    group[np.argsort(task.strata(labels), kind="stable")] = np.arange(len(labels)) % count
    values = np.full((len(metrics), count), np.nan)
    for left_out in range(count):
        rows = group != left_out
        of_rows = None if weights is None else weights[rows]
        scores = task.scores(predictions[rows], labels[rows], of_rows)
        for place, metric in enumerate(metrics):
            if (value := metric.of(scores)) is not None:
                values[place, left_out] = value
    return values


def gain(metric: Metric, value: float, than: float) -> float:
    """Returns the difference between two values of a score, positive if the first one is better."""
    return than - value if metric.lower_is_better else value - than


def is_clear(difference: float, error: float) -> bool:
    """Returns True for a clear gain.

    Args:
        difference: The gain; NaN over a start that is NaN.
        error: Its standard error.
    """
    return not difference <= CLEAR * error


def gain_error(values: Sequence[float], before: Sequence[float]) -> float:
    """Returns the standard error of the difference between two scores of the same images.

    Args:
        values: The result of `values_without_groups` for the predictions after training.
        before: That for those before it.

    Returns:
        The standard error; 0 if it is unknown, because the score has no value without some of the images.
    """
    count = len(values)
    if not count or count != len(before):
        return 0.0
    differences = np.subtract(values, before)
    error = float(np.sqrt((count - 1) / count * np.sum((differences - differences.mean()) ** 2)))
    return error if np.isfinite(error) else 0.0
