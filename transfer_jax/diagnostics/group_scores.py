"""How good a model is on each kind of image, which the accuracy over all of them may hide."""

from typing import Any

import numpy as np
from sklearn.metrics import recall_score


def group_scores(predicted: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> dict[str, dict[str, Any]]:
    """Scores by group.

    Args:
        predicted: `(images,)`, the predicted classes.
        labels: `(images,)`, the true ones.
        groups: `(images,)`, the name of each image's group.

    Returns:
        By group `images`, `accuracy` and `balanced_accuracy`, the mean recall over the classes that it has.
    """
    found = {}
    for name in np.unique(groups):
        inside = groups == name
        truth, said = labels[inside], predicted[inside]
        recall: Any = recall_score(truth, said, labels=np.unique(truth), average="macro")
        found[str(name)] = {
            "images": int(inside.sum()),
            "accuracy": float((truth == said).mean()),
            "balanced_accuracy": float(recall),
        }
    return found
