"""One of several ordered classes for each example, such as grades."""

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from transfer_jax.tasks.classification_scores import quadratic_kappa
from transfer_jax.tasks.confusions import Confusions
from transfer_jax.tasks.metric import Metric
from transfer_jax.tasks.single_label import SMALLEST, SingleLabel

if TYPE_CHECKING:
    import jax

_EXTRA = (
    Metric("quadratic_kappa", "quadratic kappa", "number", "agreement of the grades; 0 is chance level"),
    Metric("mae", "mean distance", "number", "in classes; lower is better", lower_is_better=True),
)


@dataclasses.dataclass(frozen=True)
class Ordinal(SingleLabel):
    """Classification into ordered classes, by the continuation-ratio model.

    Output k of the head is the logit of being above class k, among the examples that are at least in class k.
    So the probabilities of the classes always sum to 1. Source: Shi et al. 2021 (CORN), arXiv:2111.08851.

    Labels are int32 `(n,)`, the outputs `(n, classes - 1)`, and the predictions probabilities `(n, classes)`.
    The predicted class is the median of the probabilities, which has the smallest expected distance.

    Attributes:
        names: The classes, lowest first.
    """

    kind: ClassVar[str] = "ordinal"
    losses: ClassVar[tuple[str, ...]] = ("continuation_ratio",)
    metrics: ClassVar[tuple[Metric, ...]] = (SingleLabel.metrics[0], *_EXTRA, *SingleLabel.metrics[1:])

    @property
    def outputs(self) -> int:
        return len(self.names) - 1

    def example_scores(self, outputs: "jax.Array", labels: "jax.Array") -> "jax.Array":
        import jax.numpy as jnp

        from transfer_jax.tasks.losses import continuation_log_probabilities

        below = jnp.cumsum(jnp.exp(continuation_log_probabilities(outputs)), -1)[..., :-1]
        return (below < 0.5).sum(-1) == labels

    def predictions(self, outputs: np.ndarray) -> np.ndarray:
        above = 1 / (1 + np.exp(-outputs.astype(np.float64)))
        reached = np.cumprod(np.pad(above, ((0, 0), (1, 0)), constant_values=1), -1)
        return reached * np.pad(1 - above, ((0, 0), (0, 1)), constant_values=1)

    def logits(self, predictions: np.ndarray) -> np.ndarray:
        above = np.cumsum(predictions[:, ::-1], -1)[:, ::-1][:, 1:]  # Probability of being above each class.
        stays = np.clip(predictions[:, :-1], SMALLEST, 1)
        return np.log(np.clip(above, SMALLEST, 1)) - np.log(stays)

    def scores(
        self, predictions: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None
    ) -> dict[str, Any]:
        """Returns the scores of `SingleLabel` for the median classes, with `quadratic_kappa` and `mae`.

        `mae` is the mean distance between the predicted and the true class, in classes. `quadratic_kappa` is
        Cohen's kappa with quadratic weights (Cohen 1968); None if all classes are the same.
        """
        scores, middle = super().scores(predictions, labels, weights), self.chosen(predictions)
        return {
            **scores,
            "mae": float(np.abs(middle - labels).mean()),
            "quadratic_kappa": quadratic_kappa(Confusions.of(labels, middle, len(self.names)).matrix()),
        }

    def chosen(self, predictions: np.ndarray) -> np.ndarray:
        """Returns the median class of each example, int `(n,)`, of probabilities `(n, classes)`."""
        return (np.cumsum(predictions, -1)[:, :-1] < 0.5).sum(-1)
