"""Sums over the steps of the current epoch."""

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np


@dataclasses.dataclass
class EpochTotals:
    """Sums over the steps of the current epoch so far, as a checkpoint stores them.

    Attributes:
        steps: Number of steps.
        sums: Sum of each metric over these steps.
        rates: Sum of each block's learning rate over these steps.
        order: Hash of the positions of the images that they trained on, in order.
    """

    steps: int = 0
    sums: dict[str, float] = dataclasses.field(default_factory=dict)
    rates: dict[str, float] = dataclasses.field(default_factory=dict)
    order: str = ""

    def add(self, metrics: Mapping[str, float], rates: Mapping[str, float], images: np.ndarray) -> None:
        """Adds a step.

        Args:
            metrics: Metrics of the step by name.
            rates: Learning rate of each trainable block.
            images: Positions of the images of its batch, `(images,)`.
        """
        self.steps += 1
        self.order = hashlib.sha256(self.order.encode() + images.astype("<i8").tobytes()).hexdigest()
        for sums, values in ((self.sums, metrics), (self.rates, rates)):
            for name, value in values.items():
                sums[name] = sums.get(name, 0.0) + value

    def end_epoch(self) -> dict[str, Any]:
        """Returns the means over the epoch, and starts the next one.

        The rate of a block that was frozen during the epoch counts as 0 from there on.
        """
        means: dict[str, Any] = {name: total / self.steps for name, total in self.sums.items()}
        means["rates"] = {name: total / self.steps for name, total in self.rates.items()}
        means["order"] = self.order
        self.steps, self.sums, self.rates, self.order = 0, {}, {}, ""
        return means
