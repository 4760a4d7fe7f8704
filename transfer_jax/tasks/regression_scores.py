"""Errors of predicted numbers, with intervals."""

import numpy as np

_NORMAL = 1.959964
"""The 97.5 % quantile of the normal distribution."""


def error_scores(
    predicted: np.ndarray, truth: np.ndarray, weights: np.ndarray | None = None
) -> dict[str, float | list[float] | None]:
    """Returns the errors of one quantity, with 95 % intervals by the delta method.

    Each score is a function of means over the examples; its standard error is that of the mean of its
    influence function. Source: van der Vaart 1998, "Asymptotic Statistics", chapters 3 and 20.

    Args:
        predicted: Predictions, `(n,)`.
        truth: True values, `(n,)`.
        weights: Weight of each example, `(n,)`; None weights all equally.

    Returns:
        `mae`, `rmse` and `r2` (None if the true values are all equal); and `mae_interval`,
        `rmse_interval` and `r2_interval`, each `[low, high]`, or None with fewer than two examples.
    """
    share = np.full(len(truth), 1 / len(truth)) if weights is None else weights / weights.sum()
    distance = np.abs(predicted - truth)
    squared = distance**2
    mae, mse = float(share @ distance), float(share @ squared)
    rmse = float(np.sqrt(mse))
    spread = (truth - share @ truth) ** 2
    variance = float(share @ spread)
    scores: dict[str, float | list[float] | None] = {
        "mae": mae,
        "rmse": rmse,
        "r2": 1 - mse / variance if variance > 0 else None,
    }
    influences = {
        "mae": distance - mae,
        "rmse": (squared - mse) / (2 * rmse) if rmse > 0 else np.zeros_like(squared),
        "r2": (mse * (spread - variance) / variance - (squared - mse)) / variance if variance > 0 else None,
    }
    for name, influence in influences.items():
        scores[f"{name}_interval"] = _interval(scores[name], influence, share)
    return scores


def _interval(value: float | list[float] | None, influence: np.ndarray | None, share: np.ndarray):
    """Returns the 95 % interval of a score."""
    if influence is None or not isinstance(value, float) or len(share) < 2:
        return None
    count = len(share)
    error = _NORMAL * float(np.sqrt((share**2) @ influence**2 * count / (count - 1)))
    return [value - error, value + error]
