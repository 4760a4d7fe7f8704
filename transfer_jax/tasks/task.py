"""The base of all tasks."""

import abc
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from transfer_jax.tasks.metric import Metric

if TYPE_CHECKING:
    import jax

    Loss = Callable[[jax.Array, jax.Array], jax.Array]
    """The loss of each example, `(batch,)`, of the outputs of the head and the targets."""


@dataclasses.dataclass(frozen=True)
class Task(abc.ABC):
    """A kind of targets: the numbers that the head computes, the loss, the predictions and their scores.

    Attributes:
        names: The classes, the labels or the quantities, in the order of the columns of the predictions.
    """

    names: tuple[str, ...]

    kind: ClassVar[str]
    """Name of the kind of task, such as `multi_label`."""
    losses: ClassVar[tuple[str, ...]]
    """Names of the losses, the default first; functions in `transfer_jax.tasks.losses`."""
    metrics: ClassVar[tuple[Metric, ...]]
    """The scores that reports show, the most important one first."""
    step_metric: ClassVar[Metric]
    """The score of `step_scores`, which `scores` has, too."""
    objective: ClassVar[Metric]
    """The score that chooses the best epoch by default."""
    probabilistic: ClassVar[bool] = True
    """True if targets and predictions are probabilities, which can be smoothed and calibrated."""
    prediction_prefix: ClassVar[str] = "p"
    """First part of the columns of predictions in files, such as `p(cat)`."""
    label_prefix: ClassVar[str] = ""
    """First part of the columns of labels in files; empty if each example has one column `label`."""
    label_dtype: ClassVar[type] = np.int32
    """The dtype of labels."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(map(str, self.names)))

    @property
    def outputs(self) -> int:
        """Number of outputs of the head."""
        return len(self.names)

    @property
    def headline(self) -> Metric:
        """The most important score."""
        return self.metrics[0]

    @property
    def prediction_columns(self) -> tuple[str, ...]:
        """The columns of predictions in files, one for each name."""
        return tuple(f"{self.prediction_prefix}({name})" for name in self.names)

    @property
    def label_columns(self) -> tuple[str, ...]:
        """The columns of labels in files, one for each name; empty if one column `label` is enough."""
        return tuple(f"{self.label_prefix}({name})" for name in self.names if self.label_prefix)

    @abc.abstractmethod
    def check(self, labels: np.ndarray) -> None:
        """Raises `ValueError` if labels have another shape, dtype or range than those of the task."""

    @abc.abstractmethod
    def zeros(self, count: int) -> np.ndarray:
        """Returns the labels of examples whose labels are unknown."""

    def fitted(self, labels: np.ndarray) -> Self:
        """Returns the task with constants that are computed from the labels of the training examples."""
        return self

    def tuned(self, predictions: Any, labels: np.ndarray) -> Self:
        """Returns the task with constants that are chosen on the validation examples, such as thresholds.

        Args:
            predictions: The predictions of the validation examples.
            labels: Their labels.
        """
        return self

    def untuned(self) -> Self:
        """Returns the task without the constants of `tuned`."""
        return self

    @abc.abstractmethod
    def strata(self, labels: np.ndarray) -> np.ndarray:
        """Returns the stratum of each example, int `(n,)`; splits keep the proportions of strata."""

    def counts(self, labels: np.ndarray) -> np.ndarray:
        """Returns the number of examples of each name, int `(names,)`."""
        return np.full(len(self.names), len(labels))

    def class_weights(self, labels: np.ndarray, choice: str) -> np.ndarray | None:
        """Returns the weight of each class in the loss, float32 `(classes,)`.

        Args:
            labels: The labels of the training examples.
            choice: `none` or `balanced`; see `OptimizationConfig`.

        Returns:
            The weights; None if the task has no classes that exclude each other.

        Raises:
            ValueError: If the choice is unsupported.
        """
        if choice != "none":
            raise ValueError(
                f"class_weights={choice!r} needs classes that exclude each other, and the task is "
                f"{self.kind}; set it to 'none', or give examples weights"
            )
        return None

    def check_smoothing(self, smoothing: float, field: str = "label_smoothing") -> None:
        """Raises `ValueError` if label smoothing is not 0 and the targets are no probabilities.

        Args:
            smoothing: Label smoothing.
            field: Its name, for the message.
        """
        if smoothing and not self.probabilistic:
            raise ValueError(
                f"{field} must be 0 for the task {self.kind}, whose targets are no probabilities; "
                f"got {smoothing:g}"
            )

    @abc.abstractmethod
    def targets(self, labels: "jax.Array", smoothing: float = 0.0) -> "jax.Array":
        """Returns the targets of the loss, float32 `(batch, columns)`; it can be traced.

        Args:
            labels: Labels of a batch, as the dataset has them.
            smoothing: Label smoothing.
        """

    def step_scores(self, outputs: "jax.Array", labels: "jax.Array") -> dict[str, "jax.Array"]:
        """Returns the mean of `step_metric` over a training batch, by its name; it can be traced.

        Args:
            outputs: Outputs of the head, `(batch, outputs)`.
            labels: Labels of the batch.
        """
        return {self.step_metric.name: self.example_scores(outputs, labels).mean()}

    @abc.abstractmethod
    def example_scores(self, outputs: "jax.Array", labels: "jax.Array") -> "jax.Array":
        """Returns `step_metric` of each example, `(…, batch)`; it can be traced.

        Args:
            outputs: Outputs of the head, `(…, batch, outputs)`.
            labels: Labels of the batch.
        """

    @abc.abstractmethod
    def predictions(self, outputs: np.ndarray) -> np.ndarray:
        """Returns predictions `(n, columns)` in float64: probabilities, or quantities in their units.

        Args:
            outputs: Outputs of the head, `(n, outputs)`.
        """

    def rounded(self, prediction: float) -> float:
        """Returns a prediction as files have it: a probability with six decimals."""
        return round(float(prediction), 6)

    @abc.abstractmethod
    def scores(
        self, predictions: Any, labels: np.ndarray, weights: np.ndarray | None = None
    ) -> dict[str, Any]:
        """Returns the scores of predictions, which JSON can store.

        Args:
            predictions: Predictions, `(n, columns)`; for `single_label` also `TopPredictions`.
            labels: Labels of the examples.
            weights: Weight of each example, `(n,)`; None weights all equally.

        Returns:
            The scores by name, with `images`, the number of examples, and `task`, the kind of task.
        """

    def logits(self, predictions: np.ndarray) -> np.ndarray:
        """Returns outputs of the head `(n, outputs)` that have these predictions.

        Raises:
            ValueError: If the predictions are no probabilities.
        """
        raise ValueError(f"the task {self.kind} has no probabilities")

    def at_temperature(self, temperature: float) -> Self:
        """Returns the task for outputs that are divided by a temperature, with the same answers."""
        return self

    def from_targets(self, targets: np.ndarray) -> np.ndarray:
        """Returns predictions from means of targets, such as those of neighbours, `(n, columns)`."""
        return targets.astype(np.float64)

    @abc.abstractmethod
    def image_values(self, predictions: Any, labels: np.ndarray) -> np.ndarray:
        """Returns a value of each example whose mean is the `headline` score, float64 `(n,)`.

        Studies compare models by these values. Those of a score that is no mean are its jackknife values.

        Args:
            predictions: Predictions, `(n, columns)`.
            labels: Labels of the examples.
        """

    @abc.abstractmethod
    def answers(self, predictions: Any) -> list[str]:
        """Returns the answer of each prediction as text, such as the most probable class."""

    def confidences(self, predictions: Any) -> list[str]:
        """Returns the probability of each answer as text; empty if it has none."""
        return [""] * len(predictions)

    @abc.abstractmethod
    def label_texts(self, labels: np.ndarray) -> list[str]:
        """Returns the label of each example as text."""

    @abc.abstractmethod
    def worst(self, predictions: Any, labels: np.ndarray) -> list[int]:
        """Returns the positions of the examples that are wrong, largest error first."""

    @abc.abstractmethod
    def error(self, prediction: Any, label: np.ndarray) -> dict[str, Any]:
        """Returns facts about the error of one example, which JSON can store.

        Args:
            prediction: Its prediction, `(columns,)`.
            label: Its label.
        """

    def to_json(self) -> dict[str, Any]:
        """Returns the task as JSON values; `task_from_json` reads them."""
        return {"kind": self.kind, **dataclasses.asdict(self)}

    def with_names(self, names: Sequence[str]) -> Self:
        """Returns the task of other names, without the constants of those before."""
        return dataclasses.replace(self, names=tuple(names))

    def renamed(self, names: Sequence[str]) -> Self:
        """Returns the task with other texts for its names."""
        return dataclasses.replace(self, names=tuple(names))

    def loss(self, name: str) -> "Loss":
        """Returns a loss by its name; `auto` is the first of `losses`.

        Raises:
            ValueError: If the task has no such loss; the message names those that it has.
        """
        from transfer_jax.tasks.losses import LOSSES

        if name == "auto":
            name = self.losses[0]
        if name not in self.losses:
            raise ValueError(
                f"loss={name!r} is not for the task {self.kind}; its losses are {', '.join(self.losses)}, "
                "and functions of outputs and targets"
            )
        return LOSSES[self.kind, name]


def read_names(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields of a task in JSON, with tuples in place of lists, without its kind."""
    return {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in values.items()
        if name != "kind"
    }
