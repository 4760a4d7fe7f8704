"""What a phase has done so far, as a checkpoint keeps it."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from transfer_jax.training.inputs import Inputs


@dataclasses.dataclass
class Tally:
    """Times, and the sums of the epoch under way.

    Attributes:
        extracted: Feature rows computed.
        extract_seconds: Time computing them.
        compile_seconds: Time compiling.
        train_seconds: Time in training steps, with the wait for their input.
        steps: Steps in the epoch under way.
        sums: Sums of the metrics over these steps.
        rates: Sums of the learning rate of each block over these steps.
    """

    extracted: int = 0
    extract_seconds: float = 0.0
    compile_seconds: float = 0.0
    train_seconds: float = 0.0
    steps: int = 0
    sums: dict[str, float] = dataclasses.field(default_factory=dict)
    rates: dict[str, float] = dataclasses.field(default_factory=dict)

    def add_inputs(self, inputs: Inputs) -> None:
        """Counts what making the inputs took."""
        self.extracted += inputs.extracted
        self.extract_seconds += inputs.extract_seconds - inputs.compile_seconds
        self.compile_seconds += inputs.compile_seconds

    def add(self, metrics: Mapping[str, float], rates: Mapping[str, float]) -> None:
        """Counts one step."""
        self.steps += 1
        for sums, values in ((self.sums, metrics), (self.rates, rates)):
            for name, value in values.items():
                sums[name] = sums.get(name, 0.0) + value

    def end_epoch(self) -> dict[str, Any]:
        """The means of the epoch, which begins anew; a block that froze in it counts as 0 from there."""
        means: dict[str, Any] = {name: total / self.steps for name, total in self.sums.items()}
        means["rates"] = {name: total / self.steps for name, total in self.rates.items()}
        self.steps, self.sums, self.rates = 0, {}, {}
        return means
