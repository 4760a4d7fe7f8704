"""The interface of experiment trackers."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

PROJECT = "transfer_jax"
"""The default project of runs; each tracker has its own setting to change it."""


class Tracker(Protocol):
    """A run in an experiment tracker. Errors that it raises do not stop the training run.

    Attributes:
        id: The id of the run in the tracker; a resumed run continues with the same id.
    """

    id: str

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Logs values at a step of the run; steps never decrease."""
        ...

    def log_image(self, step: int, path: Path) -> None:
        """Logs a PNG file under the name of the file."""
        ...

    def close(self, *, finished: bool) -> None:
        """Sends the remaining data, and marks the run as finished or stopped."""
        ...


def scalars(values: Mapping[str, Any], prefix: str) -> dict[str, float]:
    """Returns the numbers of a metrics line by path, such as `train/rates/head`, without texts and lists."""
    return dict(_scalars(values, prefix))


def _scalars(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, float]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _scalars(value, f"{prefix}/{name}")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{prefix}/{name}", float(value)
