"""The numbers of examples by true and predicted class, without the pairs of classes that have none."""

import dataclasses
from collections.abc import Sequence

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Confusions:
    """The pairs of a true and a predicted class that examples have, ordered by true class.

    Attributes:
        true: The true class of each pair, int32 `(pairs,)`.
        predicted: The predicted class of each pair, int32 `(pairs,)`.
        images: The number of examples of each pair, int64 `(pairs,)`.
        classes: The number of classes.
    """

    true: np.ndarray
    predicted: np.ndarray
    images: np.ndarray
    classes: int

    @classmethod
    def of(cls, labels: np.ndarray, predicted: np.ndarray, classes: int) -> "Confusions":
        """Returns the pairs of examples.

        Args:
            labels: True classes, int `(n,)`.
            predicted: Predicted classes, int `(n,)`.
            classes: The number of classes.
        """
        pairs, images = np.unique(labels.astype(np.int64) * classes + predicted, return_counts=True)
        return cls((pairs // classes).astype(np.int32), (pairs % classes).astype(np.int32), images, classes)

    @classmethod
    def of_matrix(cls, matrix: Sequence[Sequence[int]] | np.ndarray) -> "Confusions":
        """Returns the pairs of a confusion matrix, whose rows are true classes."""
        cells = np.asarray(matrix)
        true, predicted = np.nonzero(cells)
        return cls(true.astype(np.int32), predicted.astype(np.int32), cells[true, predicted], len(cells))

    @property
    def right(self) -> np.ndarray:
        """Number of correctly predicted examples of each class, `(classes,)`."""
        return self._sum(self.true, np.where(self.true == self.predicted, self.images, 0))

    @property
    def given(self) -> np.ndarray:
        """Number of predictions of each class, `(classes,)`."""
        return self._sum(self.predicted, self.images)

    @property
    def present(self) -> np.ndarray:
        """Number of examples of each class, `(classes,)`."""
        return self._sum(self.true, self.images)

    def matrix(self, chosen: np.ndarray | None = None) -> np.ndarray:
        """Returns the confusion matrix `(classes, classes)`; rows are true classes.

        Args:
            chosen: The classes of its rows and columns; None for all.
        """
        chosen = np.arange(self.classes) if chosen is None else chosen
        place = np.full(self.classes, -1)
        place[chosen] = np.arange(len(chosen))
        rows, columns = place[self.true], place[self.predicted]
        inside = (rows >= 0) & (columns >= 0)
        found = np.zeros((len(chosen), len(chosen)), np.int64)
        found[rows[inside], columns[inside]] = self.images[inside]
        return found

    def most_confused(self, most: int) -> np.ndarray:
        """Returns the classes with the most wrong examples, at most `most`, in the order of the classes."""
        wrong = self.given + self.present - 2 * self.right
        return np.sort(np.argsort(-wrong, kind="stable")[:most])

    def largest_errors(self, most: int) -> list[tuple[int, int, int]]:
        """Returns the most frequent errors: true class, predicted class and number of examples of each."""
        wrong = np.flatnonzero(self.true != self.predicted)
        order = wrong[np.argsort(-self.images[wrong], kind="stable")[:most]]
        rows = zip(self.true[order], self.predicted[order], self.images[order], strict=True)
        return [(int(true), int(predicted), int(images)) for true, predicted, images in rows]

    def _sum(self, of: np.ndarray, images: np.ndarray) -> np.ndarray:
        return np.bincount(of, weights=images, minlength=self.classes).astype(np.int64)
