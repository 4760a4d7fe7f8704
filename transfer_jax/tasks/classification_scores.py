"""Scores of classifications, with the definitions of scikit-learn."""

from typing import NamedTuple

import numpy as np


class ClassScores(NamedTuple):
    """Scores of each class, each `(classes,)`; a score whose denominator is zero is zero.

    Attributes:
        precision: Fraction of the predictions of the class that are right.
        recall: Fraction of the images of the class that are found.
        f1: Harmonic mean of precision and recall.
        images: Number of images of the class.
    """

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    images: np.ndarray


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """Returns the number of images by true class and predicted class, `(classes, classes)`."""
    cells = np.bincount(labels * num_classes + predicted, minlength=num_classes**2)
    return cells.reshape(num_classes, num_classes)


def class_scores(confusion: np.ndarray) -> ClassScores:
    """Returns the scores of each class from the result of `confusion_matrix`."""
    right, predicted, images = confusion.diagonal(), confusion.sum(0), confusion.sum(1)
    return ClassScores(
        right / np.maximum(predicted, 1),
        right / np.maximum(images, 1),
        2 * right / np.maximum(predicted + images, 1),
        images,
    )


def log_loss(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Returns the mean negative log-likelihood of the true classes.

    Args:
        labels: True classes, `(images,)`.
        probabilities: Probabilities, `(images, classes)`, clipped to `[eps, 1 - eps]` of their dtype.
    """
    epsilon = np.finfo(probabilities.dtype).eps
    of_truth = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(np.clip(of_truth, epsilon, 1 - epsilon)).mean())


def roc_auc(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Returns the area under the ROC curve, for more than two classes the mean of each against the rest.

    Args:
        labels: True classes, `(images,)`; every class has an image.
        probabilities: Probabilities, `(images, classes)`.
    """
    classes = [1] if probabilities.shape[1] == 2 else range(probabilities.shape[1])
    return float(np.mean([_binary_auc(labels == each, probabilities[:, each]) for each in classes]))


def _binary_auc(positive: np.ndarray, score: np.ndarray) -> float:
    """Returns the fraction of pairs in which the positive has the higher score; ties count half."""
    _, place, counts = np.unique(score, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    count, others = positive.sum(), (~positive).sum()
    return (ranks[positive].sum() - count * (count + 1) / 2) / (count * others)


def quadratic_kappa(confusion: np.ndarray) -> float | None:
    """Returns Cohen's kappa with quadratic weights; None if all images have one true and predicted class.

    Source: Cohen 1968, "Weighted kappa: nominal scale agreement provision for scaled disagreement".

    Args:
        confusion: The result of `confusion_matrix` for ordered classes.
    """
    places = np.arange(len(confusion))
    distance = (places[:, None] - places) ** 2
    expected = np.outer(confusion.sum(1), confusion.sum(0)) / confusion.sum()
    disagreement = float((distance * expected).sum())
    return None if disagreement == 0 else 1 - float((distance * confusion).sum()) / disagreement
