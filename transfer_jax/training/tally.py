"""What a phase has done so far, as a checkpoint keeps it."""

import dataclasses
from collections.abc import Mapping


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
    """

    extracted: int = 0
    extract_seconds: float = 0.0
    compile_seconds: float = 0.0
    train_seconds: float = 0.0
    steps: int = 0
    sums: dict[str, float] = dataclasses.field(default_factory=dict)

    def add(self, metrics: Mapping[str, float]) -> None:
        """Counts one step."""
        self.steps += 1
        for name, value in metrics.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def end_epoch(self) -> dict[str, float]:
        """The means of the epoch, which begins anew."""
        means = {name: total / self.steps for name, total in self.sums.items()}
        self.steps, self.sums = 0, {}
        return means
