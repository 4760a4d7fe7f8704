"""Calibration: the expected calibration error and the reliability curve.

Source: Guo et al. 2017, "On Calibration of Modern Neural Networks", arXiv:1706.04599, with bins of equal
width.
"""

from typing import Any

import numpy as np

BINS = 15
"""The number of bins in the paper."""


def reliability(probabilities: np.ndarray, labels: np.ndarray, bins: int = BINS) -> dict[str, Any]:
    """Returns the expected calibration error and the reliability curve of the predicted class.

    Bins have equal width. A confidence on the border of two bins belongs to the lower one.

    Args:
        probabilities: `(images, classes)`.
        labels: Indices of the true classes, `(images,)`.
        bins: Number of bins between 0 and 1.

    Returns:
        A dict with `ece`, the mean difference between accuracy and confidence over the bins, weighted by
        their numbers of images; and `bins`, a list with `low` and `high`, the mean `confidence` and
        `accuracy` (None for an empty bin), and the number of `images` of each bin.
    """
    confidence = probabilities.max(-1)
    right = probabilities.argmax(-1) == labels
    edges = np.linspace(0, 1, bins + 1)
    bin_of = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    error, found = 0.0, []
    for index in range(bins):
        inside = bin_of == index
        count = int(inside.sum())
        mean = float(confidence[inside].mean()) if count else None
        accuracy = float(right[inside].mean()) if count else None
        if mean is not None and accuracy is not None:
            error += count / len(labels) * abs(accuracy - mean)
        low, high = (round(float(edge), 6) for edge in edges[index : index + 2])
        found.append({"low": low, "high": high, "confidence": mean, "accuracy": accuracy, "images": count})
    return {"ece": error, "bins": found}
