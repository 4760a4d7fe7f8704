"""Transferability scores: how well frozen features fit a task, without training a head.

They rank networks and depths by one pass over some images. Only `leep` needs the classes that a network was
pretrained on.
"""

from typing import Any

import numpy as np

_STEPS, _TOLERANCE = 100, 1e-6


def log_me(features: Any, targets: Any) -> float:
    """Returns LogME, the logarithm of the maximum evidence of a Bayesian linear model, per example.

    Each target is modelled as a linear function of the features with Gaussian noise. The variances of the
    weights and of the noise maximize the evidence, so that more channels are not better by themselves. The
    result is the mean over the targets; higher is better. Method: You et al. 2021, arXiv:2102.11005, with the
    fixed point of You et al. 2022, arXiv:2110.10545, from one singular value decomposition.

    Example:
        >>> features = extract_features("efficientnet_lite0", images)["pre_logits"]
        >>> log_me(features, labels)

    Args:
        features: Features `(n, channels)`.
        targets: Classes `(n,)` as integers, which are scored one against the rest; or numbers `(n,)` or
            `(n, targets)`.

    Raises:
        ValueError: If the shapes do not fit, or a value is not finite.
    """
    features, targets = _checked(features, targets)
    columns = _one_hot(targets) if targets.ndim == 1 and targets.dtype.kind in "iub" else targets
    columns = columns.reshape(len(features), -1).astype(np.float64)
    left, singular, _ = np.linalg.svd(features, full_matrices=False)
    projected = (left.T @ columns) ** 2
    outside = np.maximum((columns**2).sum(0) - projected.sum(0), 0)
    size = (len(features), features.shape[1])
    found = [_evidence(singular**2, projected[:, k], outside[k], size) for k in range(columns.shape[1])]
    return float(np.mean(found))


def leep(probabilities: Any, labels: Any) -> float:
    """Returns LEEP, the log expected empirical prediction of the classes by a network's former classifier.

    It is the mean log-likelihood of a classifier that draws one of the former classes by the network's
    probabilities, and then one of the new classes by their empirical distribution given the former one.
    Higher is better, and 0 is the best. Method: Nguyen et al. 2020, arXiv:2002.12462.

    Args:
        probabilities: Probabilities of the former classes `(n, former_classes)`.
        labels: Classes `(n,)` as integers.

    Raises:
        ValueError: If the shapes do not fit, or a value is not finite or negative.
    """
    probabilities, labels = _checked(probabilities, labels)
    if (probabilities < 0).any():
        raise ValueError(f"probabilities must be at least 0, got {probabilities.min():.3g}")
    member = _one_hot(labels)
    joint = member.T @ probabilities / len(labels)
    former = joint.sum(0)
    given = np.divide(joint, former, out=np.zeros_like(joint), where=former > 0)
    expected = ((probabilities @ given.T) * member).sum(1)
    with np.errstate(divide="ignore"):
        return float(np.log(expected).mean())


def h_score(features: Any, labels: Any) -> float:
    """Returns the regularized H-score: the variance of features between classes, relative to the whole one.

    It is the trace of the covariance of the class means times the inverse of the covariance of the features,
    at most `classes - 1`; higher is better (Bao et al. 2019, "An Information-Theoretic Approach to
    Transferability in Task Transfer Learning"). The covariance is shrunk as by Ledoit and Wolf 2004, and the
    result by the same factor, so that it also ranks features with more channels than images (Ibrahim et al.
    2021, arXiv:2110.06893).

    Args:
        features: Features `(n, channels)`.
        labels: Classes `(n,)` as integers.

    Raises:
        ValueError: If the shapes do not fit, or a value is not finite.
    """
    features, labels = _checked(features, labels)
    centered = features - features.mean(0)
    count, channels = centered.shape
    _, singular, right = np.linalg.svd(centered, full_matrices=False)
    variances = singular**2 / count
    squares, mean = (variances**2).sum(), variances.sum() / channels
    if not mean:
        return 0.0  # All examples have the same features.
    spread = squares - channels * mean**2
    noise = ((centered**2).sum(1) ** 2).sum() / count**2 - squares / count
    shrinkage = min(noise / spread, 1.0) if spread > 1e-12 * squares else 0.0
    member = _one_hot(labels)
    sizes = member.sum(0)
    means = (member.T @ centered) / sizes[:, None]
    shrunk = (1 - shrinkage) * variances + shrinkage * mean
    # The means of the classes are sums of rows, so they are in the span of the right singular vectors.
    scaled = (means @ right.T) ** 2 / np.maximum(shrunk, np.finfo(np.float64).tiny)
    return float((1 - shrinkage) * (sizes / count) @ scaled.sum(1))


def _evidence(variances: np.ndarray, projected: np.ndarray, outside: float, size: tuple[int, int]) -> float:
    """Returns the largest log evidence of one target, per example.

    Args:
        variances: Squared singular values of the features, `(k,)`.
        projected: Squared coordinates of the target along the left singular vectors, `(k,)`.
        outside: Squared norm of the rest of the target.
        size: Numbers of examples and of channels.
    """
    count, channels = size
    tiny = np.finfo(np.float64).tiny
    alpha = beta = 1.0  # Precision of the weights and of the noise.
    for _ in range(_STEPS):
        total = alpha + beta * variances
        effective = (beta * variances / total).sum()
        weights = (beta**2 * variances * projected / total**2).sum()
        error = ((alpha / total) ** 2 * projected).sum() + outside
        ratio = alpha / beta
        alpha, beta = effective / max(weights, tiny), (count - effective) / max(error, tiny)
        alpha, beta = (float(np.clip(each, 1e-12, 1e12)) for each in (alpha, beta))
        if abs(alpha / beta - ratio) <= _TOLERANCE * ratio:
            break
    total = alpha + beta * variances
    weights = (beta**2 * variances * projected / total**2).sum()
    error = ((alpha / total) ** 2 * projected).sum() + outside
    determinant = np.log(total).sum() + (channels - len(variances)) * np.log(alpha)
    value = count * np.log(beta) + channels * np.log(alpha) - count * np.log(2 * np.pi)
    return float(value - beta * error - alpha * weights - determinant) / (2 * count)


def _one_hot(labels: np.ndarray) -> np.ndarray:
    """Returns the membership of each example in the classes that occur, `(n, classes)`."""
    classes, index = np.unique(labels, return_inverse=True)
    return np.eye(len(classes))[index]


def _checked(rows: Any, targets: Any) -> tuple[np.ndarray, np.ndarray]:
    rows, targets = np.asarray(rows, np.float64), np.asarray(targets)
    if rows.ndim != 2 or not len(rows) or len(rows) != len(np.atleast_1d(targets)):
        raise ValueError(
            "features must have the shape (n, channels) and targets n entries; got the shapes "
            f"{rows.shape} and {targets.shape}"
        )
    if not np.isfinite(rows).all() or (targets.dtype.kind == "f" and not np.isfinite(targets).all()):
        raise ValueError("features or targets have values that are no finite numbers")
    return rows, targets
