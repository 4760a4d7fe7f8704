"""A schedule: phases in order, as one value that is hashed, printed, stored and resumed."""

import dataclasses
import json

from transfer_jax.freezing.phase import Phase


@dataclasses.dataclass(frozen=True)
class Schedule:
    """An ordered list of phases."""

    phases: tuple[Phase, ...]

    def __post_init__(self) -> None:
        if not self.phases:
            raise ValueError("a schedule needs at least one phase")
        names = [phase.name for phase in self.phases]
        if len(set(names)) != len(names):
            raise ValueError(f"the phases of a schedule need different names, got {', '.join(names)}")

    def __add__(self, other: "Schedule") -> "Schedule":
        return Schedule((*self.phases, *other.phases))

    def clock(self, index: int) -> tuple[int, int]:
        """Where a phase lies on the clock that its learning rate follows.

        Args:
            index: Position of the phase.

        Returns:
            Epochs on that clock before it, and epochs on that clock in all.
        """
        phase = self.phases[index]
        if phase.clock == "phase":
            return 0, phase.epochs
        on_clock = [each.epochs * (each.clock == "schedule") for each in self.phases]
        return sum(on_clock[:index]), sum(on_clock)

    def to_json(self) -> str:
        """The schedule as text that `from_json` reads back to an equal schedule."""
        return json.dumps([dataclasses.asdict(phase) for phase in self.phases])

    @classmethod
    def from_json(cls, text: str) -> "Schedule":
        """Reads what `to_json` wrote."""
        return cls(tuple(Phase(**fields) for fields in json.loads(text)))

    def __str__(self) -> str:
        return " -> ".join(f"{phase.name}: {phase.train} x {phase.epochs}" for phase in self.phases)
