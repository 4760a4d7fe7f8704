"""One class for each example."""

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from transfer_jax.tasks.classification_scores import class_scores, log_loss, roc_auc
from transfer_jax.tasks.confusions import Confusions
from transfer_jax.tasks.metric import Metric
from transfer_jax.tasks.task import Task
from transfer_jax.tasks.top_predictions import (
    TOP,
    TopPredictions,
    among_top,
    confidence,
    predicted_class,
    truth,
)

if TYPE_CHECKING:
    import jax

MOST_IN_MATRIX = 50
"""Largest number of classes whose confusion matrix is among the scores."""
MOST_FOR_AUC = 100
"""Largest number of classes whose ROC AUC is computed."""
SMALLEST = 1e-16
"""The probability whose logit stands for that of a smaller one."""
_LOG_LOSS = Metric("log_loss", "log loss", "number", "lower is better", lower_is_better=True)
_ACCURACY = Metric("accuracy", "accuracy", "percent", "fraction of the images that are right")
_METRICS = (
    Metric("top5_accuracy", "top-5 accuracy", "percent", "true class among the five most probable"),
    Metric("weighted_accuracy", "weighted accuracy", "percent", "by the weights of the images"),
    Metric("balanced_accuracy", "balanced accuracy", "percent", "mean recall of the classes"),
    Metric("macro_f1", "macro F1", "percent", "mean F1 of the classes"),
    Metric("roc_auc", "ROC AUC", "number", "0.5 is chance level"),
    _LOG_LOSS,
)


@dataclasses.dataclass(frozen=True)
class SingleLabel(Task):
    """Classification with one class for each example.

    Labels are int32 `(n,)`, the outputs are logits and the predictions probabilities, `(n, classes)`.
    """

    kind: ClassVar[str] = "single_label"
    losses: ClassVar[tuple[str, ...]] = ("cross_entropy", "bce", "focal")
    metrics: ClassVar[tuple[Metric, ...]] = (_ACCURACY, *_METRICS)
    step_metric: ClassVar[Metric] = _ACCURACY
    objective: ClassVar[Metric] = _LOG_LOSS

    def check(self, labels: np.ndarray) -> None:
        if labels.ndim != 1 or labels.dtype != np.int32:
            raise ValueError(
                f"labels must be int32 of shape (n,), got {labels.dtype} of shape {labels.shape}"
            )
        if np.any((labels < 0) | (labels >= len(self.names))):
            raise ValueError(
                f"labels must be in 0..{len(self.names) - 1} ({len(self.names)} class names), "
                f"got {labels.min()}..{labels.max()}"
            )

    def zeros(self, count: int) -> np.ndarray:
        return np.zeros(count, np.int32)

    def strata(self, labels: np.ndarray) -> np.ndarray:
        return labels

    def counts(self, labels: np.ndarray) -> np.ndarray:
        return np.bincount(labels, minlength=len(self.names))

    def class_weights(self, labels: np.ndarray, choice: str) -> np.ndarray | None:
        """Returns equal weights, or weights inverse to the class frequencies, whose mean over images is 1."""
        if choice != "balanced":
            return np.ones(len(self.names), np.float32)
        counts = np.bincount(labels, minlength=len(self.names))
        return (len(labels) / (np.count_nonzero(counts) * np.maximum(counts, 1))).astype(np.float32)

    def targets(self, labels: "jax.Array", smoothing: float = 0.0) -> "jax.Array":
        """Returns one-hot targets with label smoothing (Szegedy et al. 2015, arXiv:1512.00567)."""
        import jax
        import optax

        return optax.smooth_labels(jax.nn.one_hot(labels, len(self.names)), smoothing)

    def example_scores(self, outputs: "jax.Array", labels: "jax.Array") -> "jax.Array":
        return outputs.argmax(-1) == labels

    def predictions(self, outputs: np.ndarray) -> np.ndarray:
        outputs = outputs.astype(np.float64)
        powers = np.exp(outputs - outputs.max(-1, keepdims=True))
        return powers / powers.sum(-1, keepdims=True)

    def scores(
        self, predictions: Any, labels: np.ndarray, weights: np.ndarray | None = None
    ) -> dict[str, Any]:
        """Returns the scores of probabilities, or of the most probable classes (`TopPredictions`).

        Returns:
            `accuracy`, `balanced_accuracy` (mean recall over classes), `macro_f1`, `roc_auc` (one class
            against the rest, averaged; None if a class has no image, of more than 100 classes, and of
            `TopPredictions`), `log_loss`, `images`, `confusion` (rows are true classes; of at most 50
            classes) and `per_class` with precision, recall, F1 and number of images. With more than ten
            classes also `top5_accuracy`; with weights also `weighted_accuracy`. A class without images is not
            evaluated: its scores are None, and it does not count in the means.
        """
        count, predicted = len(self.names), self.chosen(predictions)
        confusions = Confusions.of(labels, predicted, count)
        each = class_scores(confusions)
        present = each.images > 0
        right = np.asarray(predicted == labels)
        auc = isinstance(predictions, np.ndarray) and count <= MOST_FOR_AUC and present.all()
        top = {"top5_accuracy": float(among_top(predictions, labels).mean())} if count > 2 * TOP else {}
        weighted = {} if weights is None else {"weighted_accuracy": float(np.average(right, weights=weights))}
        return {
            "task": self.kind,
            "accuracy": float(right.mean()),
            **top,
            **weighted,
            "balanced_accuracy": float(each.recall[present].mean()),
            "macro_f1": float(each.f1[present].mean()),
            "roc_auc": roc_auc(labels, predictions) if auc else None,
            "log_loss": log_loss(labels, predictions),
            "images": len(labels),
            **({"confusion": confusions.matrix().tolist()} if count <= MOST_IN_MATRIX else {}),
            "per_class": {
                name: {
                    "precision": float(each.precision[i]) if present[i] else None,
                    "recall": float(each.recall[i]) if present[i] else None,
                    "f1": float(each.f1[i]) if present[i] else None,
                    "images": int(each.images[i]),
                }
                for i, name in enumerate(self.names)
            },
        }

    def logits(self, predictions: np.ndarray) -> np.ndarray:
        return np.log(np.clip(predictions, SMALLEST, 1))

    def image_values(self, predictions: Any, labels: np.ndarray) -> np.ndarray:
        """Returns 1 for the examples that are right, and 0 for the others."""
        return (self.chosen(predictions) == labels).astype(np.float64)

    def chosen(self, predictions: Any) -> np.ndarray:
        """Returns the predicted class of each example, int `(n,)`."""
        return predicted_class(predictions)

    def worst(self, predictions: Any, labels: np.ndarray) -> list[int]:
        """Returns the misclassified examples, lowest probability of the true class first."""
        wrong = np.flatnonzero(self.chosen(predictions) != labels)
        return wrong[np.argsort(truth(predictions, labels)[wrong], kind="stable")].tolist()

    def error(self, prediction: Any, label: np.ndarray) -> dict[str, Any]:
        """Returns the `probability` of the predicted class, and that of the true one (`truth`)."""
        row = prediction if isinstance(prediction, TopPredictions) else prediction[None]
        return {
            "probability": round(float(confidence(row)[0]), 6),
            "truth": round(float(truth(row, np.array([label]))[0]), 6),
        }

    def answers(self, predictions: Any) -> list[str]:
        return [self.names[place] for place in self.chosen(predictions)]

    def confidences(self, predictions: Any) -> list[str]:
        return [f"{value:.1%}" for value in confidence(predictions)]

    def label_texts(self, labels: np.ndarray) -> list[str]:
        return [self.names[label] for label in labels]
