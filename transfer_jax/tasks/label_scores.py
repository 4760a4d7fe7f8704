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


def jackknife_average_precision(positive: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """Returns the jackknife values of the average precision, `(n,)`: `n s - (n - 1) s_i`.

    `s` is the score of all examples and `s_i` that without example i. Without a single positive, all values
    are the score, since that without it is undefined.

    Args:
        positive: bool `(n,)`, True for at least one example.
        probability: Probability of the label, `(n,)`.
    """
    count, positives = len(positive), int(positive.sum())
    # Precision at each positive, and the same without one example at or above it: a positive or a negative.
    ranks = np.searchsorted(np.sort(probability), probability, side="left")
    given = count - ranks  # Number of examples at or above each probability.
    hits = positives - np.searchsorted(np.sort(probability[positive]), probability, side="left")
    precision = np.where(positive, hits / given, 0.0)
    whole = precision.sum() / positives
    if positives == 1:
        return np.full(count, whole)
    others = np.maximum(given - 1, 1)
    changes = [np.where(positive, found / others, 0.0) - precision for found in (hits - 1, hits)]
    order = np.argsort(probability, kind="stable")
    last = np.searchsorted(probability[order], probability, side="right") - 1
    below = [np.cumsum(change[order])[last] for change in changes]  # Sums at or below each probability.
    # A positive loses its own term; the negative above a positive only moves the ranks.
    own = precision + changes[0]
    without = np.where(
        positive,
        (precision.sum() + below[0] - own) / (positives - 1),
        (precision.sum() + below[1]) / positives,
    )
    return count * whole - (count - 1) * without


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
