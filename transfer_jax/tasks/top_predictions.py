"""Predictions of large sets with many classes: the most probable classes of each example, and the true one.

All probabilities of 50,000 examples of 1,000 classes take 400 MB; their most probable classes take 2 MB.
"""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import jax

TOP = 5
"""Number of the most probable classes that are kept of each example."""
MOST_VALUES = 5_000_000
"""Largest number of probabilities, examples times classes, that are all kept: 40 MB."""


@dataclasses.dataclass(frozen=True, eq=False)
class TopPredictions:
    """The most probable classes of examples, and the probability of the true class of each.

    Attributes:
        classes: The most probable classes, int32 `(n, 5)`, most probable first; fewer columns if there are
            fewer classes.
        probabilities: Their probabilities, float32 `(n, 5)`.
        log_truth: Logarithm of the probability of the true class, float32 `(n,)`; NaN if it is unknown.
    """

    classes: np.ndarray
    probabilities: np.ndarray
    log_truth: np.ndarray

    @classmethod
    def of(cls, probabilities: np.ndarray, labels: np.ndarray | None = None) -> "TopPredictions":
        """Returns the most probable classes among all probabilities, `(n, classes)`.

        Args:
            probabilities: The probabilities.
            labels: The true classes, int `(n,)`; None if they are unknown.
        """
        count = min(TOP, probabilities.shape[1])
        largest = np.sort(np.argpartition(-probabilities, count - 1, axis=-1)[:, :count], axis=-1)
        places = np.argsort(-np.take_along_axis(probabilities, largest, -1), axis=-1, kind="stable")
        order = np.take_along_axis(largest, places, -1)
        log_truth = np.full(len(probabilities), np.nan)
        if labels is not None:
            tiny = np.finfo(np.float64).tiny
            log_truth = np.log(np.maximum(probabilities[np.arange(len(labels)), labels], tiny))
        found = np.take_along_axis(probabilities, order, -1)
        return cls(order.astype(np.int32), found.astype(np.float32), log_truth.astype(np.float32))

    @classmethod
    def join(cls, parts: Sequence["TopPredictions"]) -> "TopPredictions":
        """Returns the predictions of several sets of examples, one after the other."""
        names = [field.name for field in dataclasses.fields(cls)]
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))

    def __len__(self) -> int:
        return len(self.classes)

    def __getitem__(self, rows: int | slice | np.ndarray | Sequence[int]) -> "TopPredictions":
        """Returns the predictions of some examples, or of one of them."""
        rows = [rows] if isinstance(rows, int) else rows
        return TopPredictions(self.classes[rows], self.probabilities[rows], self.log_truth[rows])

    @property
    def predicted(self) -> np.ndarray:
        """The most probable class, int32 `(n,)`."""
        return self.classes[:, 0]

    @property
    def confidence(self) -> np.ndarray:
        """The probability of the most probable class, float32 `(n,)`."""
        return self.probabilities[:, 0]

    @property
    def truth(self) -> np.ndarray:
        """The probability of the true class, float64 `(n,)`."""
        return np.exp(self.log_truth.astype(np.float64))


Predicted = np.ndarray | TopPredictions
"""Predictions of examples: all columns `(n, columns)`, or the most probable classes."""


def join_predictions(batches: Sequence[Predicted]) -> Predicted:
    """Returns the predictions of several batches of examples, one after the other."""
    tops = [batch for batch in batches if isinstance(batch, TopPredictions)]
    if tops:
        return TopPredictions.join(tops)
    return np.concatenate([batch for batch in batches if isinstance(batch, np.ndarray)])


def predicted_class(predictions: Predicted) -> np.ndarray:
    """Returns the most probable class of each example, int `(n,)`."""
    return predictions.predicted if isinstance(predictions, TopPredictions) else predictions.argmax(-1)


def confidence(predictions: Predicted) -> np.ndarray:
    """Returns the probability of the most probable class of each example, `(n,)`."""
    return predictions.confidence if isinstance(predictions, TopPredictions) else predictions.max(-1)


def truth(predictions: Predicted, labels: np.ndarray) -> np.ndarray:
    """Returns the probability of the true class of each example, `(n,)`."""
    if isinstance(predictions, TopPredictions):
        return predictions.truth
    return predictions[np.arange(len(labels)), labels]


def among_top(predictions: Predicted, labels: np.ndarray) -> np.ndarray:
    """Returns bool `(n,)`, True for examples whose true class is among the `TOP` most probable ones."""
    if isinstance(predictions, TopPredictions):
        return (predictions.classes == labels[:, None]).any(-1)
    return (predictions > truth(predictions, labels)[:, None]).sum(-1) < TOP


def keeps_all(examples: int, classes: int) -> bool:
    """Returns True if all probabilities of examples are kept, False if only the most probable classes are."""
    return examples * classes <= MOST_VALUES


def top_of_logits(logits: "jax.Array", labels: "jax.Array") -> dict[str, "jax.Array"]:
    """Returns the fields of `TopPredictions` of a batch, on the devices; it can be traced.

    Args:
        logits: `(batch, classes)`.
        labels: True classes, int32 `(batch,)`.
    """
    import jax
    import jax.numpy as jnp

    found = jax.nn.log_softmax(logits.astype(jnp.float32))
    best, classes = jax.lax.top_k(found, min(TOP, logits.shape[-1]))
    log_truth = jnp.take_along_axis(found, labels[:, None], -1)[:, 0]
    return {"classes": classes.astype(jnp.int32), "probabilities": jnp.exp(best), "log_truth": log_truth}
