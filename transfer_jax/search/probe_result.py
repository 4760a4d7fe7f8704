"""The result of a probe: the most important score of the task at each depth."""

import dataclasses

import numpy as np

from transfer_jax.tasks import Metric, SingleLabel


@dataclasses.dataclass(frozen=True, kw_only=True)
class DepthScore:
    """The score of the features at one depth.

    Attributes:
        score: Score of the validation examples, which chose nothing.
        standard_error: Standard error of the score, from the values of the validation examples.
        training_score: Score of the chosen setting in the cross-validation of the training examples.
        setting: The chosen setting: neighbours (`k`), or the L2 penalty.
        channels: Number of channels of the features.
    """

    score: float
    standard_error: float
    training_score: float
    setting: float
    channels: int


@dataclasses.dataclass(frozen=True)
class ProbeResult:
    """The scores of a probe at all depths; `print` shows a table.

    Attributes:
        probe: `knn` or `linear`.
        scores: The score of each depth, in the order of the features.
        train: Number of training examples.
        validation: Number of validation examples.
        metric: The score: accuracy, mean average precision or mean absolute error.
    """

    probe: str
    scores: dict[str, DepthScore]
    train: int
    validation: int
    metric: Metric = SingleLabel.metrics[0]

    @property
    def values(self) -> dict[str, float]:
        """The score of the validation examples by depth."""
        return {name: score.score for name, score in self.scores.items()}

    @property
    def best(self) -> str:
        """The depth with the best cross-validated score of the training examples.

        The validation examples do not choose it, so that its `score` is unbiased.
        """
        names = list(self.scores)
        return names[self.metric.best(np.array([self.scores[name].training_score for name in names]))]

    def rows(self) -> list[tuple[str, ...]]:
        """Returns the texts of the table: a row of headings, and one for each depth."""
        setting = {"knn": "k", "linear": "L2"}[self.probe]
        rows = [("depth", "channels", setting, "cross-validated", "validation", "±")]
        for name, score in self.scores.items():
            rows.append(
                (
                    name + (" *" if name == self.best else ""),
                    str(score.channels),
                    f"{score.setting:.3g}",
                    self.metric.text(score.training_score),
                    self.metric.text(score.score),
                    self.metric.text(score.standard_error),
                )
            )
        return rows

    def title(self) -> str:
        """Returns a line about the probe and its examples."""
        name = {"knn": "k nearest neighbours", "linear": "a linear model"}[self.probe]
        score = self.metric.title if self.metric.title != "accuracy" else "Accuracy"
        return (
            f"{score} of {name} ({self.train:,} training and {self.validation:,} validation examples; "
            "* is the best depth by cross-validation)"
        )

    def table(self) -> str:
        """Returns a table as text."""
        rows = self.rows()
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [self.title()]
        for row in rows:
            first, *others = (
                text.ljust(width) if index == 0 else text.rjust(width)
                for index, (text, width) in enumerate(zip(row, widths, strict=True))
            )
            lines.append("  ".join([first, *others]).rstrip())
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.table()


def mean_and_error(values: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    """Returns the weighted mean of the values of examples, and its standard error.

    Args:
        values: Value of each example, `(n,)`; see `Task.image_values`.
        weights: Weight of each example, `(n,)`.
    """
    mean = float(np.average(values, weights=weights))
    variance = float(np.average((values - mean) ** 2, weights=weights))
    return mean, (variance / len(values)) ** 0.5
