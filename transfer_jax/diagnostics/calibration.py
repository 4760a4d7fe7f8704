"""Whether a model is as often right as it says.

Source: the expected calibration error over bins of equal width, and the reliability curve, as in Guo et al.
2017, "On Calibration of Modern Neural Networks", arXiv:1706.04599.
"""

from typing import Any

import numpy as np

BINS = 15
"""As many as the authors take."""


def reliability(probabilities: np.ndarray, labels: np.ndarray, bins: int = BINS) -> dict[str, Any]:
    """The expected calibration error and the reliability curve of the class with the highest probability.

    Bins are of equal width, and a confidence on the border of two belongs to the lower one.

    Args:
        probabilities: `(images, classes)`.
        labels: `(images,)`.
        bins: Number of bins between 0 and 1.

    Returns:
        `ece`, the mean distance of accuracy and confidence over the bins, weighted by their images; and
        `bins`, with `low` and `high`, mean `confidence` and `accuracy` (None where a bin is empty), and
        `images`.
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
