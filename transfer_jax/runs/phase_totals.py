"""What a phase has done so far, as a checkpoint keeps it."""

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from transfer_jax.training.phase_data import PhaseData


@dataclasses.dataclass
class PhaseTotals:
    """Times, and the sums of the epoch under way.

    Attributes:
        extracted: Feature rows computed.
        extract_seconds: Time computing them.
        compile_seconds: Time compiling.
        train_seconds: Time in training steps, with the wait for their input.
        steps: Steps in the epoch under way.
        sums: Sums of the metrics over these steps.
        rates: Sums of the learning rate of each block over these steps.
        order: A hash of which images they trained on, in their order.
    """

    extracted: int = 0
    extract_seconds: float = 0.0
    compile_seconds: float = 0.0
    train_seconds: float = 0.0
    steps: int = 0
    sums: dict[str, float] = dataclasses.field(default_factory=dict)
    rates: dict[str, float] = dataclasses.field(default_factory=dict)
    order: str = ""

    def add_inputs(self, inputs: PhaseData) -> None:
        """Counts what making the inputs took."""
        self.extracted += inputs.extracted
        self.extract_seconds += inputs.extract_seconds - inputs.compile_seconds
        self.compile_seconds += inputs.compile_seconds

    def add(self, metrics: Mapping[str, float], rates: Mapping[str, float], images: np.ndarray) -> None:
        """Counts one step; `images` are the positions of those it trained on."""
        self.steps += 1
        self.order = hashlib.sha256(self.order.encode() + images.astype("<i8").tobytes()).hexdigest()
        for sums, values in ((self.sums, metrics), (self.rates, rates)):
            for name, value in values.items():
                sums[name] = sums.get(name, 0.0) + value

    def end_epoch(self) -> dict[str, Any]:
        """The means of the epoch, which begins anew; a block that froze in it counts as 0 from there."""
        means: dict[str, Any] = {name: total / self.steps for name, total in self.sums.items()}
        means["rates"] = {name: total / self.steps for name, total in self.rates.items()}
        means["order"] = self.order
        self.steps, self.sums, self.rates, self.order = 0, {}, {}, ""
        return means
