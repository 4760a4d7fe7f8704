"""Scores of classifications, with the definitions of scikit-learn."""

from typing import NamedTuple

import numpy as np

from transfer_jax.tasks.confusions import Confusions
from transfer_jax.tasks.top_predictions import Predicted, TopPredictions, truth


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


def class_scores(confusions: Confusions) -> ClassScores:
    """Returns the scores of each class from the pairs of true and predicted classes."""
    right, predicted, images = confusions.right, confusions.given, confusions.present
    return ClassScores(
        right / np.maximum(predicted, 1),
        right / np.maximum(images, 1),
        2 * right / np.maximum(predicted + images, 1),
        images,
    )


def log_loss(labels: np.ndarray, predictions: Predicted) -> float:
    """Returns the mean negative log-likelihood of the true classes.

    Args:
        labels: True classes, `(images,)`.
        predictions: Probabilities, `(images, classes)`, clipped to `[eps, 1 - eps]` of their dtype, or the
            most probable classes, clipped to those of float64.
    """
    if isinstance(predictions, TopPredictions):
        lowest = np.log(np.finfo(np.float64).eps)
        return float(-np.clip(predictions.log_truth.astype(np.float64), lowest, 0).mean())
    epsilon = np.finfo(predictions.dtype).eps
    return float(-np.log(np.clip(truth(predictions, labels), epsilon, 1 - epsilon)).mean())


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
        confusion: Images by true class (rows) and predicted class, for ordered classes.
    """
    places = np.arange(len(confusion))
    distance = (places[:, None] - places) ** 2
    expected = np.outer(confusion.sum(1), confusion.sum(0)) / confusion.sum()
    disagreement = float((distance * expected).sum())
    return None if disagreement == 0 else 1 - float((distance * confusion).sum()) / disagreement
