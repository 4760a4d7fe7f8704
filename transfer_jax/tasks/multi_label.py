"""Any number of labels for each example."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from transfer_jax.tasks.classification_scores import roc_auc
from transfer_jax.tasks.label_scores import average_precision, best_threshold, jackknife_average_precision
from transfer_jax.tasks.metric import Metric
from transfer_jax.tasks.single_label import SMALLEST
from transfer_jax.tasks.task import Task

if TYPE_CHECKING:
    import jax

_LOG_LOSS = Metric(
    "log_loss", "log loss", "number", "mean over labels; lower is better", lower_is_better=True
)
_RARE = 4
"""Smallest number of examples of a combination of labels that is a stratum of its own."""


@dataclasses.dataclass(frozen=True)
class MultiLabel(Task):
    """Classification with any number of labels for each example, also none.

    Labels are uint8 `(n, labels)` of 0 and 1, the outputs are logits and the predictions probabilities,
    `(n, labels)`.

    Attributes:
        names: The labels.
        thresholds: Probability of each label from which it is predicted; empty for 0.5. `tuned` chooses those
            with the best F1 on the validation examples.
    """

    thresholds: tuple[float, ...] = ()

    kind: ClassVar[str] = "multi_label"
    losses: ClassVar[tuple[str, ...]] = ("bce", "focal")
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("mean_average_precision", "mAP", "percent", "mean average precision of the labels"),
        Metric("macro_f1", "macro F1", "percent", "mean F1 of the labels"),
        Metric("micro_f1", "micro F1", "percent", "F1 of all labels together"),
        Metric("exact_match", "exact match", "percent", "images with all labels right"),
        Metric("roc_auc", "ROC AUC", "number", "mean of the labels; 0.5 is chance level"),
        _LOG_LOSS,
    )
    step_metric: ClassVar[Metric] = Metric(
        "label_accuracy", "label accuracy", "percent", "labels of all images that are right"
    )
    objective: ClassVar[Metric] = _LOG_LOSS
    label_prefix: ClassVar[str] = "y"
    label_dtype: ClassVar[type] = np.uint8

    @property
    def cutoffs(self) -> np.ndarray:
        """The threshold of each label, `(labels,)`."""
        return np.array(self.thresholds or [0.5] * len(self.names))

    def check(self, labels: np.ndarray) -> None:
        if labels.ndim != 2 or labels.dtype != np.uint8 or labels.shape[1] != len(self.names):
            raise ValueError(
                f"labels must be uint8 of shape (n, {len(self.names)}), one column for each label, got "
                f"{labels.dtype} of shape {labels.shape}"
            )
        if labels.size and labels.max() > 1:
            raise ValueError(f"labels must be 0 or 1, got {labels.max()}")

    def zeros(self, count: int) -> np.ndarray:
        return np.zeros((count, len(self.names)), np.uint8)

    def strata(self, labels: np.ndarray) -> np.ndarray:
        """Returns the combination of labels of each example; rare ones count as their rarest label."""
        _, combination, counts = np.unique(labels, axis=0, return_inverse=True, return_counts=True)
        combination = combination.reshape(len(labels))
        rarest = np.where(labels > 0, labels.sum(0), np.iinfo(np.int64).max).argmin(-1)
        return np.where(counts[combination] < _RARE, len(counts) + rarest, combination)

    def counts(self, labels: np.ndarray) -> np.ndarray:
        return labels.sum(0, dtype=np.int64)

    def targets(self, labels: "jax.Array", smoothing: float = 0.0) -> "jax.Array":
        """Returns targets of 0 and 1, moved towards 0.5 by label smoothing."""
        return labels.astype("float32") * (1 - smoothing) + smoothing / 2

    def example_scores(self, outputs: "jax.Array", labels: "jax.Array") -> "jax.Array":
        return ((outputs > 0) == (labels > 0)).mean(-1)

    def predictions(self, outputs: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-outputs.astype(np.float64)))

    def tuned(self, predictions: np.ndarray, labels: np.ndarray) -> Self:
        """Returns the task with the thresholds of the best F1; labels without positives keep 0.5."""
        found = [best_threshold(labels[:, i] > 0, predictions[:, i]) for i in range(len(self.names))]
        return dataclasses.replace(self, thresholds=tuple(found))

    def untuned(self) -> Self:
        return dataclasses.replace(self, thresholds=())

    def scores(
        self, predictions: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None
    ) -> dict[str, Any]:
        """Returns the scores of probabilities.

        Returns:
            `mean_average_precision`, `macro_f1`, `micro_f1`, `exact_match` (fraction of examples with all
            labels right), `label_accuracy` (fraction of all labels that are right), `roc_auc` (mean over
            labels; None if a label is on all or no examples), `log_loss` (mean over labels), `images`, and
            `per_class` with average precision, precision, recall, F1, threshold and number of images of each
            label. A label without images is not evaluated: its scores
            are None, and it does not count in the means.
        """
        truth, found = labels > 0, predictions >= self.cutoffs
        hits, given, images = (truth & found).sum(0), found.sum(0), truth.sum(0)
        f1 = 2 * hits / np.maximum(given + images, 1)
        precision = [average_precision(truth[:, i], predictions[:, i]) for i in range(len(self.names))]
        present = images > 0
        clipped = np.clip(predictions, np.finfo(np.float64).eps, 1 - np.finfo(np.float64).eps)
        both = present & (images < len(labels))
        aucs = [
            roc_auc(labels[:, i].astype(np.int32), np.stack([1 - predictions[:, i], predictions[:, i]], 1))
            for i in np.flatnonzero(both)
        ]
        return {
            "task": self.kind,
            "mean_average_precision": float(np.mean([each for each in precision if each is not None]))
            if present.any()
            else None,
            "macro_f1": float(f1[present].mean()) if present.any() else None,
            "micro_f1": float(2 * hits.sum() / max(given.sum() + images.sum(), 1)),
            "exact_match": float((truth == found).all(-1).mean()),
            "label_accuracy": float((truth == found).mean()),
            "roc_auc": float(np.mean(aucs)) if both.all() and aucs else None,
            "log_loss": float(-np.where(truth, np.log(clipped), np.log1p(-clipped)).mean()),
            "images": len(labels),
            "per_class": {
                name: {
                    "average_precision": precision[i],
                    "precision": float(hits[i] / max(given[i], 1)) if present[i] else None,
                    "recall": float(hits[i] / images[i]) if present[i] else None,
                    "f1": float(f1[i]) if present[i] else None,
                    "threshold": float(self.cutoffs[i]),
                    "images": int(images[i]),
                }
                for i, name in enumerate(self.names)
            },
        }

    def logits(self, predictions: np.ndarray) -> np.ndarray:
        likely, unlikely = (np.clip(each, SMALLEST, 1) for each in (predictions, 1 - predictions))
        return np.log(likely) - np.log(unlikely)

    def at_temperature(self, temperature: float) -> Self:
        """Returns the task with the thresholds of the new probabilities."""
        found = self.predictions(self.logits(self.cutoffs) / temperature)
        return dataclasses.replace(self, thresholds=tuple(found.tolist())) if self.thresholds else self

    def image_values(self, predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Returns the jackknife values of the mean average precision (Tukey 1958), moved to its value."""
        each = [
            jackknife_average_precision(labels[:, i] > 0, predictions[:, i])
            for i in np.flatnonzero(labels.any(0))
        ]
        if not each:
            return np.zeros(len(labels))
        values = np.mean(each, axis=0)
        precision = [average_precision(labels[:, i] > 0, predictions[:, i]) for i in range(len(self.names))]
        return values - values.mean() + np.mean([one for one in precision if one is not None])

    def worst(self, predictions: np.ndarray, labels: np.ndarray) -> list[int]:
        """Returns the examples with a wrong label, least probable set of true labels first."""
        truth = labels > 0
        wrong = ((predictions >= self.cutoffs) != truth).any(-1)
        tiny = np.finfo(np.float64).eps
        likelihood = np.log(np.clip(np.where(truth, predictions, 1 - predictions), tiny, 1)).sum(-1)
        return [int(index) for index in np.argsort(likelihood, kind="stable") if wrong[index]]

    def error(self, prediction: np.ndarray, label: np.ndarray) -> dict[str, Any]:
        """Returns a `note` with the number of wrong labels."""
        wrong = int(((prediction >= self.cutoffs) != (label > 0)).sum())
        return {"note": f"{wrong} of {len(self.names)} labels wrong"}

    def answers(self, predictions: np.ndarray) -> list[str]:
        return self.label_texts(predictions >= self.cutoffs)

    def confidences(self, predictions: np.ndarray) -> list[str]:
        chosen = predictions >= self.cutoffs
        return [
            "; ".join(f"{value:.1%}" for value, on in zip(row, each, strict=True) if on)
            for row, each in zip(predictions, chosen, strict=True)
        ]

    def label_texts(self, labels: np.ndarray) -> list[str]:
        return ["; ".join(name for name, on in zip(self.names, row, strict=True) if on) for row in labels]

    def with_names(self, names: Sequence[str]) -> Self:
        return dataclasses.replace(self, names=tuple(names), thresholds=())
