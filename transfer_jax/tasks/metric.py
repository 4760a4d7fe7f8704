"""A score by name: its title, its format, and its better direction."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np


@dataclasses.dataclass(frozen=True)
class Metric:
    """A score of predictions, as reports show it.

    Attributes:
        name: Its key in the scores.
        title: Its name in text.
        format: `percent` for a fraction, `number` for any other number.
        note: Its meaning in a few words.
        lower_is_better: True for errors and losses.
    """

    name: str
    title: str
    format: Literal["percent", "number"]
    note: str
    lower_is_better: bool = False

    def of(self, scores: Mapping[str, Any]) -> float | None:
        """Returns the value among scores; None if they do not have it."""
        return scores.get(self.name)

    def text(self, value: float | None) -> str:
        """Returns a value as text, such as `93.1%` or `0.214`."""
        if value is None:
            return "none"
        return f"{value:.1%}" if self.format == "percent" else f"{value:.4g}"

    def difference_text(self, value: float) -> str:
        """Returns a difference of two values as text, such as `+1.8 points` or `-0.031`."""
        return f"{100 * value:+.1f} points" if self.format == "percent" else f"{value:+.3g}"

    def best(self, values: np.ndarray) -> int:
        """Returns the position of the best of some values, `(n,)`, the first one of equal ones."""
        return int(values.argmin() if self.lower_is_better else values.argmax())

    def gain(self, value: float | None, than: float | None) -> float | None:
        """Returns by how much a value is better than another one, negative if it is worse."""
        if value is None or than is None:
            return None
        return than - value if self.lower_is_better else value - than

    def is_better(self, value: Any, than: Any) -> Any:
        """Returns whether values are better than others: a boolean, or an array of them for arrays."""
        return value < than if self.lower_is_better else value > than
