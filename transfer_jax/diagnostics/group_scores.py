"""Scores of a model on each group of images."""

from typing import Any

import numpy as np
from sklearn.metrics import recall_score


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
        recall: Any = recall_score(truth, output, labels=np.unique(truth), average="macro")
        found[str(name)] = {
            "images": int(inside.sum()),
            "accuracy": float((truth == output).mean()),
            "balanced_accuracy": float(recall),
        }
    return found
