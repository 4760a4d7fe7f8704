"""Where a run is: all of the state machine of its schedule but the arrays, as a checkpoint keeps it."""

import dataclasses
from typing import Any

from transfer_jax.freezing.controllers import Measured


@dataclasses.dataclass
class RunProgress:
    """Where a run is: in the middle of a phase, or, while `data` is None, at the start of one.

    Attributes:
        images: Tells whether it is still about the same images.
        phase: Position of the phase under way.
        data: Position in its training batches.
        frozen_depth: How many blocks its controller holds frozen.
        tests: What was measured at the controller's tests.
        multipliers: From path to what scales its rate; None without a statistic.
        spans: What certificates say of the parts of the phase that are over.
        span_start: Step at which the part under way began.
        ended_frozen_depth: The frozen_depth at which the phase before ended.
        tally: Times, and sums of the epoch under way.
        results: What the phases that are over did.
        seconds: Where the time went, see `Goodput`.
        saved: When this was saved, in seconds since 1970.
    """

    images: str = ""
    phase: int = 0
    data: dict[str, Any] | None = None
    frozen_depth: int = 0
    tests: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    multipliers: dict[str, float] | None = None
    spans: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    span_start: int = 0
    ended_frozen_depth: int = 0
    tally: dict[str, Any] = dataclasses.field(default_factory=dict)
    results: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    saved: float = 0.0

    @property
    def history(self) -> list[Measured]:
        """What a controller is given."""
        return [Measured(**{**test, "blocks": tuple(test["blocks"])}) for test in self.tests]

    def next_phase(self, result: dict[str, Any]) -> None:
        """Goes on to the start of the next phase."""
        self.results.append(result)
        self.phase, self.ended_frozen_depth = self.phase + 1, self.frozen_depth
        self.data, self.frozen_depth, self.tests, self.multipliers = None, 0, [], None
        self.spans, self.span_start, self.tally = [], 0, {}
