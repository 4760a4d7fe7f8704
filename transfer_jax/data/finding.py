"""A problem of a dataset, and the input of the checks that find problems."""

import dataclasses
import functools
from typing import Any

import numpy as np

from transfer_jax.data.dataset import ImageDataset
from transfer_jax.data.scan import ImageScan

EXAMPLES = 5
"""Largest number of examples of a finding."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """A problem of a dataset.

    Attributes:
        kind: The check that found it, one of the keys of `CHECKS`.
        text: A description in one line, with figures.
        advice: The recommended action; empty if there is none.
        figures: The figures by name.
        examples: Names of affected images or classes, at most five entries.
    """

    kind: str
    text: str
    advice: str = ""
    figures: dict[str, float] = dataclasses.field(default_factory=dict)
    examples: tuple[tuple[str, ...], ...] = ()

    def __str__(self) -> str:
        return f"{self.text}. To do: {self.advice}" if self.advice else self.text

    def to_json(self) -> dict[str, Any]:
        """Returns the finding as plain JSON values."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True, eq=False)
class CheckInput:
    """The input of the checks.

    Attributes:
        dataset: All images.
        scan: The scan of these images.
        training: bool `(n,)`, True for training images.
        held_out: bool `(n,)`, True for validation images.
        image_size: Side of the network's input, in pixels.
    """

    dataset: ImageDataset
    scan: ImageScan
    training: np.ndarray
    held_out: np.ndarray
    image_size: int

    @functools.cached_property
    def counts(self) -> dict[str, int]:
        """Number of images of each class by name, bad images included."""
        return self.dataset.counts()

    def names(self, rows: np.ndarray) -> tuple[tuple[str, ...], ...]:
        """Returns the names of the images in the first rows of an array of positions."""
        return tuple(tuple(self.dataset.names[int(i)] for i in np.atleast_1d(row)) for row in rows[:EXAMPLES])
