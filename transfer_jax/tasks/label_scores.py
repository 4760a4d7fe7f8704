"""Scores of the probabilities of one label, with the definitions of scikit-learn."""

import numpy as np


def average_precision(positive: np.ndarray, probability: np.ndarray) -> float | None:
    """Returns the mean of the precisions at the recalls that are reached; None without positives.

    Args:
        positive: bool `(n,)`, True for examples with the label.
        probability: Probability of the label, `(n,)`; equal ones are one step.
    """
    hits, given = _steps(positive, probability)
    if not len(hits) or hits[-1] == 0:
        return None
    gained = np.diff(hits, prepend=0)
    return float((gained * hits / given).sum() / hits[-1])


def best_threshold(positive: np.ndarray, probability: np.ndarray) -> float:
    """Returns the threshold with the largest F1, in the middle between two probabilities.

    Args:
        positive: bool `(n,)`, True for examples with the label.
        probability: Probability of the label, `(n,)`.

    Returns:
        The threshold; 0.5 if no example or every example has the label.
    """
    if positive.all() or not positive.any():
        return 0.5
    distinct = np.unique(probability)[::-1]
    hits, given = _steps(positive, probability)
    best = int(np.argmax(2 * hits / (given + positive.sum())))
    below = distinct[best + 1] if best + 1 < len(distinct) else 0.0
    return float((distinct[best] + below) / 2)


def _steps(positive: np.ndarray, probability: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the numbers of hits and of examples at or above each distinct probability, highest first."""
    order = np.argsort(-probability, kind="stable")
    last = np.flatnonzero(np.diff(probability[order], append=-np.inf))
    return np.cumsum(positive[order])[last], last + 1
