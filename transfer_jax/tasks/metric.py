"""A score by name: its title, its format, and its better direction."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal


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

    def is_better(self, value: Any, than: Any) -> Any:
        """Returns whether values are better than others: a boolean, or an array of them for arrays."""
        return value < than if self.lower_is_better else value > than
