"""How good a model is on images it did not train on."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from scipy.special import softmax
from sklearn import metrics as scores

from transfer_jax.models.flat_arrays import Arrays
from transfer_jax.training.step import INPUTS, EvalStep


def predict(eval_step: EvalStep, arrays: Arrays, batches: Iterable[Mapping[str, Any]]) -> np.ndarray:
    """The probabilities `(images, classes)` of all images, in order, the filling of batches left out."""
    found = []
    for batch in batches:
        inputs = {name: batch[name] for name in INPUTS if name in batch}
        logits = np.asarray(jax.device_get(eval_step(arrays, inputs)))
        found.append(logits[np.asarray(batch["mask"])])
    return softmax(np.concatenate(found).astype(np.float64), axis=-1)


def evaluation_metrics(
    probabilities: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
    weights: np.ndarray | None = None,
) -> dict[str, Any]:
    """Scores of predictions, by scikit-learn.

    Args:
        probabilities: `(images, classes)`.
        labels: `(images,)`.
        class_names: Names in the order of the classes.
        weights: `(images,)`, how much each image counts in `weighted_accuracy`.

    Returns:
        `accuracy`, `balanced_accuracy` (mean recall over classes), `macro_f1`, `roc_auc` (one class against
        the rest, averaged; None where a class has no image), `log_loss`, `images`, `confusion`
        (rows are true classes) and `per_class` with precision, recall, F1 and number of images. With
        weights `weighted_accuracy` too.
    """
    classes = np.arange(len(class_names))
    predicted = probabilities.argmax(-1)
    zero: Any = 0  # Its type is declared as a string only.
    each: Any = scores.precision_recall_fscore_support(labels, predicted, labels=classes, zero_division=zero)
    precision, recall, f1, support = each
    present = support > 0
    confusion = scores.confusion_matrix(labels, predicted, labels=classes)
    weighted = {} if weights is None else {"weighted_accuracy": _mean(predicted == labels, weights)}
    return {
        "accuracy": float((predicted == labels).mean()),
        **weighted,
        "balanced_accuracy": float(recall[present].mean()),
        "macro_f1": float(f1[present].mean()),
        "roc_auc": _roc_auc(probabilities, labels) if present.all() else None,
        "log_loss": float(scores.log_loss(labels, probabilities, labels=classes)),
        "images": len(labels),
        "confusion": confusion.tolist(),
        "per_class": {
            name: {
                "precision": float(precision[i]),
                "recall": float(recall[i]),
                "f1": float(f1[i]),
                "images": int(support[i]),
            }
            for i, name in enumerate(class_names)
        },
    }


def _mean(values: np.ndarray, weights: np.ndarray) -> float:
    return float(np.average(values, weights=weights))


def _roc_auc(probabilities: np.ndarray, labels: np.ndarray) -> float:
    if probabilities.shape[1] == 2:
        return float(scores.roc_auc_score(labels, probabilities[:, 1]))
    return float(scores.roc_auc_score(labels, probabilities, multi_class="ovr"))
