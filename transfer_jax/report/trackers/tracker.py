"""What a tracker is told."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

PROJECT = "transfer_jax"
"""What runs are filed under, where the user has not said otherwise in the way of the tracker."""


class Tracker(Protocol):
    """A run at a tracker; any error that it raises is taken care of.

    Attributes:
        id: What the tracker knows the run by; given to it again when the run goes on.
    """

    id: str

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Takes values at a step of the run; steps never go back."""
        ...

    def log_image(self, step: int, path: Path) -> None:
        """Takes a PNG file, to be called as the file is."""
        ...

    def close(self, *, finished: bool) -> None:
        """Sends all that is left; the run is over, or was only stopped."""
        ...


def scalars(values: Mapping[str, Any], prefix: str) -> dict[str, float]:
    """The numbers in a line of metrics, named by where they are: `train/rates/head`; no texts, no lists."""
    return dict(_scalars(values, prefix))


def _scalars(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, float]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _scalars(value, f"{prefix}/{name}")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{prefix}/{name}", float(value)
