"""The result of a probe: the accuracy at each depth."""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class DepthScore:
    """The score of the features at one depth.

    Attributes:
        accuracy: Accuracy on the validation examples, which chose nothing.
        standard_error: Standard error of the accuracy, from the number of validation examples.
        training_accuracy: Accuracy of the chosen setting in the cross-validation of the training examples.
        setting: The chosen setting: neighbours (`k`), or the L2 penalty.
        channels: Number of channels of the features.
    """

    accuracy: float
    standard_error: float
    training_accuracy: float
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
    """

    probe: str
    scores: dict[str, DepthScore]
    train: int
    validation: int

    @property
    def accuracy(self) -> dict[str, float]:
        """Accuracy on the validation examples by depth."""
        return {name: score.accuracy for name, score in self.scores.items()}

    @property
    def best(self) -> str:
        """The depth with the best cross-validated accuracy of the training examples.

        The validation examples do not choose it, so that its `accuracy` is unbiased.
        """
        return max(self.scores, key=lambda name: self.scores[name].training_accuracy)

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
                    f"{score.training_accuracy:.1%}",
                    f"{score.accuracy:.1%}",
                    f"{score.standard_error:.1%}",
                )
            )
        return rows

    def title(self) -> str:
        """Returns a line about the probe and its examples."""
        name = {"knn": "k nearest neighbours", "linear": "logistic regression"}[self.probe]
        return (
            f"Accuracy of {name} ({self.train:,} training and {self.validation:,} validation examples; "
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


def standard_error(accuracy: float, examples: int) -> float:
    """Returns the standard error of an accuracy that was measured on some examples."""
    return (accuracy * (1 - accuracy) / examples) ** 0.5
