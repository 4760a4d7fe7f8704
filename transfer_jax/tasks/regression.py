"""One or several numbers for each example."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from transfer_jax.tasks.metric import Metric
from transfer_jax.tasks.regression_scores import error_scores
from transfer_jax.tasks.task import Task

if TYPE_CHECKING:
    import jax

_MAE = Metric("mae", "MAE", "number", "mean absolute error; lower is better", lower_is_better=True)


@dataclasses.dataclass(frozen=True)
class Regression(Task):
    """Regression of one or several quantities.

    Labels and predictions are float32 `(n, quantities)` in their units. The loss works on standardized
    numbers: minus the mean of the training examples, divided by their standard deviation.

    Attributes:
        names: The quantities.
        mean: Mean of each quantity over the training examples; empty before `fitted`, which means 0.
        scale: Standard deviation of each quantity over the training examples; empty before `fitted`, which
            means 1.
    """

    mean: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()

    kind: ClassVar[str] = "regression"
    losses: ClassVar[tuple[str, ...]] = ("mse", "huber", "mae")
    metrics: ClassVar[tuple[Metric, ...]] = (
        _MAE,
        Metric("rmse", "RMSE", "number", "root of the mean squared error; lower is better", True),
        Metric("r2", "R²", "number", "1 is perfect; 0 is the mean of all"),
    )
    step_metric: ClassVar[Metric] = _MAE
    objective: ClassVar[Metric] = Metric(
        "standardized_mse", "standardized MSE", "number", "in variances; lower is better", True
    )
    probabilistic: ClassVar[bool] = False
    prediction_prefix: ClassVar[str] = "value"
    label_prefix: ClassVar[str] = "true"
    label_dtype: ClassVar[type] = np.float32

    def check(self, labels: np.ndarray) -> None:
        if labels.ndim != 2 or labels.dtype != np.float32 or labels.shape[1] != len(self.names):
            raise ValueError(
                f"labels must be float32 of shape (n, {len(self.names)}), one column for each quantity, got "
                f"{labels.dtype} of shape {labels.shape}"
            )
        if not np.isfinite(labels).all():
            row = int(np.flatnonzero(~np.isfinite(labels).all(-1))[0])
            raise ValueError(f"labels must be finite, but that of example {row} is {labels[row].tolist()}")

    def zeros(self, count: int) -> np.ndarray:
        return np.zeros((count, len(self.names)), np.float32)

    def fitted(self, labels: np.ndarray) -> Self:
        """Returns the task with the mean and standard deviation of labels; a constant has the scale 1."""
        mean, scale = labels.mean(0, dtype=np.float64), labels.std(0, dtype=np.float64)
        scale = np.where(scale > 0, scale, 1.0)
        return dataclasses.replace(self, mean=tuple(mean.tolist()), scale=tuple(scale.tolist()))

    def with_names(self, names: Sequence[str]) -> Self:
        return dataclasses.replace(self, names=tuple(names), mean=(), scale=())

    def strata(self, labels: np.ndarray) -> np.ndarray:
        """Returns the tenth of the first quantity that each example is in; fewer parts for few examples."""
        parts = int(np.clip(len(labels) // 10, 1, 10))
        edges = np.quantile(labels[:, 0], np.arange(1, parts) / parts)
        return np.searchsorted(edges, labels[:, 0], side="right")

    def targets(self, labels: "jax.Array", smoothing: float = 0.0) -> "jax.Array":
        return (labels - np.float32(self._mean)) / np.float32(self._scale)

    def example_scores(self, outputs: "jax.Array", labels: "jax.Array") -> "jax.Array":
        return abs(outputs * np.float32(self._scale) + np.float32(self._mean) - labels).mean(-1)

    def predictions(self, outputs: np.ndarray) -> np.ndarray:
        return outputs.astype(np.float64) * self._scale + self._mean

    def rounded(self, prediction: float) -> float:
        """Returns a prediction with seven digits."""
        return float(f"{prediction:.7g}")

    def scores(
        self, predictions: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None
    ) -> dict[str, Any]:
        """Returns the errors of predictions.

        Returns:
            `mae`, `rmse` and `r2`, the means over the quantities; `standardized_mse`, the squared error in
            variances of the training examples; `images`; and `per_quantity` with the scores of each quantity
            and their 95 % intervals. With weights, the errors are weighted means.
        """
        each = [
            error_scores(predictions[:, i], labels[:, i].astype(np.float64), weights)
            for i in range(len(self.names))
        ]
        squared = ((predictions - labels) / self._scale) ** 2
        means = {name: _mean([one[name] for one in each]) for name in ("mae", "rmse", "r2")}
        return {
            "task": self.kind,
            **means,
            "standardized_mse": float(np.average(squared.mean(-1), weights=weights)),
            "images": len(labels),
            "per_quantity": dict(zip(self.names, each, strict=True)),
        }

    def from_targets(self, targets: np.ndarray) -> np.ndarray:
        return self.predictions(targets)

    def image_values(self, predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Returns the absolute error of each example, the mean over the quantities."""
        return np.abs(predictions - labels).mean(-1)

    def worst(self, predictions: np.ndarray, labels: np.ndarray) -> list[int]:
        """Returns all examples, largest standardized error first."""
        scale = self._scale if self.scale else np.maximum(labels.std(0, dtype=np.float64), 1e-12)
        distance = (np.abs(predictions - labels) / scale).mean(-1)
        return np.argsort(-distance, kind="stable").tolist()

    def error(self, prediction: np.ndarray, label: np.ndarray) -> dict[str, Any]:
        """Returns a `note` with the error of each quantity."""
        errors = [f"{value:+.4g}" for value in prediction - label]
        return {"note": f"off by {', '.join(errors)}"}

    def answers(self, predictions: np.ndarray) -> list[str]:
        return self.label_texts(predictions)

    def label_texts(self, labels: np.ndarray) -> list[str]:
        if len(self.names) == 1:
            return [f"{row[0]:.6g}" for row in labels]
        return [
            ", ".join(f"{name} {value:.6g}" for name, value in zip(self.names, row, strict=True))
            for row in labels
        ]

    @property
    def _mean(self) -> np.ndarray:
        return np.array(self.mean or [0.0] * len(self.names))

    @property
    def _scale(self) -> np.ndarray:
        return np.array(self.scale or [1.0] * len(self.names))


def _mean(values: list[Any]) -> float | None:
    """Returns the mean of the values; None if one is missing."""
    return None if None in values else float(np.mean(values))
