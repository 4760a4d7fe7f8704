"""A schedule: an ordered list of phases that can be hashed, printed, stored and resumed."""

import dataclasses
import json

from transfer_jax.fields import as_tuple, to_json
from transfer_jax.freezing.adapter_text import AdapterText
from transfer_jax.freezing.phase import Phase


@dataclasses.dataclass(frozen=True)
class Schedule:
    """An ordered list of phases. Schedules are joined by `+`.

    Example:
        >>> first = Phase(name="head", train="head", epochs=10, learning_rate=3e-3)
        >>> second = Phase(name="top", train="top(2)", epochs=5, learning_rate=1e-4)
        >>> print(Schedule((first, second)))
        head: head x 10 -> top: top(2) x 5

    Attributes:
        phases: The phases in the order of training, at least one, with different names.

    Raises:
        ValueError: If there is no phase, or two phases or two different adapters have the same name.
    """

    phases: tuple[Phase, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "phases", as_tuple(self.phases))
        if other := [phase for phase in self.phases if not isinstance(phase, Phase)]:
            raise ValueError(f"a schedule is made of phases, got {other[0]!r}")
        if not self.phases:
            raise ValueError("a schedule needs at least one phase")
        names = [phase.name for phase in self.phases]
        if len(set(names)) != len(names):
            raise ValueError(f"the phases of a schedule need different names, got {', '.join(names)}")
        texts: dict[str, str] = {}
        for each in (adapter for phase in self.phases for adapter in phase.adapters):
            if texts.setdefault(each.name, str(each)) != str(each):
                raise ValueError(
                    f"two adapters have the name {each.name!r}: {texts[each.name]} and {each}; a phase that "
                    "continues an adapter repeats its text, and another adapter needs another name='…'"
                )

    def __add__(self, other: "Schedule") -> "Schedule":
        return Schedule((*self.phases, *other.phases))

    def adapters(self, index: int) -> tuple[AdapterText, ...]:
        """Returns the adapters that the network has in a phase: those of this phase and of all before it.

        Args:
            index: Position of the phase in `phases`.
        """
        found = {each.name: each for phase in self.phases[: index + 1] for each in phase.adapters}
        return tuple(found.values())

    def clock(self, index: int) -> tuple[int, int]:
        """Returns the position of a phase in the span of its learning-rate schedule.

        Args:
            index: Position of the phase in `phases`.

        Returns:
            The epochs of the span before the phase, and all epochs of the span.
        """
        phase = self.phases[index]
        if phase.clock == "phase":
            return 0, phase.epochs
        epochs = [each.epochs * (each.clock == "schedule") for each in self.phases]
        return sum(epochs[:index]), sum(epochs)

    def to_json(self) -> str:
        """Returns the schedule as JSON text; `from_json` returns an equal schedule."""
        return json.dumps([to_json(phase) for phase in self.phases])

    @classmethod
    def from_json(cls, text: str) -> "Schedule":
        """Returns the schedule that `to_json` wrote."""
        return cls(tuple(Phase(**fields) for fields in json.loads(text)))

    def __str__(self) -> str:
        return " -> ".join(f"{phase.name}: {phase.train} x {phase.epochs}" for phase in self.phases)
