"""Scores of a model on each group of images."""

from typing import Any

import numpy as np

from transfer_jax.tasks.classification_scores import class_scores
from transfer_jax.tasks.confusions import Confusions


def group_scores(predicted: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> dict[str, dict[str, Any]]:
    """Returns the scores of each group.

    Args:
        predicted: Indices of the predicted classes, `(images,)`.
        labels: Indices of the true classes, `(images,)`.
        groups: Name of each image's group, `(images,)`.

    Returns:
        By group, the number of `images`, the `accuracy`, and the `balanced_accuracy`, which is the mean
        recall over the classes in the group.
    """
    found = {}
    for name in np.unique(groups):
        inside = groups == name
        truth, output = labels[inside], predicted[inside]
        each = class_scores(Confusions.of(truth, output, int(max(truth.max(), output.max())) + 1))
        found[str(name)] = {
            "images": int(inside.sum()),
            "accuracy": float((truth == output).mean()),
            "balanced_accuracy": float(each.recall[each.images > 0].mean()),
        }
    return found
