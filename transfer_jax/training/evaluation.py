"""Predictions of a model, and their scores."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from transfer_jax.models.flat_arrays import Arrays
from transfer_jax.training.forward import INPUTS
from transfer_jax.training.phase_step import EvalStep
from transfer_jax.training.scores import class_scores, confusion_matrix, log_loss, roc_auc


def predict(eval_step: EvalStep, arrays: Arrays, batches: Iterable[Mapping[str, Any]]) -> np.ndarray:
    """Returns the probabilities of all images, `(images, classes)`, in order.

    Args:
        eval_step: The compiled forward pass.
        arrays: All arrays of the model.
        batches: Batches of images or features; images whose `mask` is False fill a batch and are left out.
    """
    found = []
    for batch in batches:
        inputs = {name: batch[name] for name in INPUTS if name in batch}
        logits = np.asarray(jax.device_get(eval_step(arrays, inputs)))
        found.append(logits[np.asarray(batch["mask"])])
    logits = np.concatenate(found).astype(np.float64)
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def evaluation_metrics(
    probabilities: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
    weights: np.ndarray | None = None,
) -> dict[str, Any]:
    """Returns the scores of predictions.

    Args:
        probabilities: Probabilities, `(images, classes)`.
        labels: True classes, `(images,)`.
        class_names: Names in the order of the classes.
        weights: Weight of each image in `weighted_accuracy`, `(images,)`; None leaves that score out.

    Returns:
        `accuracy`, `balanced_accuracy` (mean recall over classes), `macro_f1`, `roc_auc` (one class against
        the rest, averaged; None if a class has no image), `log_loss`, `images`, `confusion` (rows are true
        classes) and `per_class` with precision, recall, F1 and number of images. With weights also
        `weighted_accuracy`. A class without images is not evaluated: its scores are None, and it does not
        count in the means.
    """
    predicted = probabilities.argmax(-1)
    confusion = confusion_matrix(labels, predicted, len(class_names))
    each = class_scores(confusion)
    present = each.images > 0
    right = predicted == labels
    weighted = {} if weights is None else {"weighted_accuracy": float(np.average(right, weights=weights))}
    return {
        "accuracy": float(right.mean()),
        **weighted,
        "balanced_accuracy": float(each.recall[present].mean()),
        "macro_f1": float(each.f1[present].mean()),
        "roc_auc": roc_auc(labels, probabilities) if present.all() else None,
        "log_loss": log_loss(labels, probabilities),
        "images": len(labels),
        "confusion": confusion.tolist(),
        "per_class": {
            name: {
                "precision": float(each.precision[i]) if present[i] else None,
                "recall": float(each.recall[i]) if present[i] else None,
                "f1": float(each.f1[i]) if present[i] else None,
                "images": int(each.images[i]),
            }
            for i, name in enumerate(class_names)
        },
    }
