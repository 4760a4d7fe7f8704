"""The progress of a run through its schedule: all of its state but the arrays, as a checkpoint stores it."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from transfer_jax.freezing.controllers import Measured

_RENAMED = {"cut": "frozen_depth", "ended_cut": "ended_frozen_depth"}
"""Names of version 0.1.0, and today's."""


@dataclasses.dataclass
class RunProgress:
    """The progress of a run: in the middle of a phase, or at the start of one if `data` is None.

    Attributes:
        start: The fields of the `RunStart`; a run resumes only with the same one.
        images: Hash of the training and validation images, in place of `start` in earlier versions.
        phase: Position of the current phase in the schedule.
        data: Position in the phase's training batches.
        frozen_depth: Number of blocks that the phase's controller keeps frozen.
        tests: Measurements at each test of the controller.
        multipliers: Factor of each tensor's learning rate, by path; None without a statistic.
        spans: Entries of the phase's freeze record for its earlier parts.
        span_start: Step at which the current part of the phase started.
        ended_frozen_depth: The frozen depth at the end of the phase before.
        extracted: Feature rows computed for the phase.
        clock_start: Reading of the run's clock (`Goodput.seconds`) when the phase started.
        epoch: Sums over the current epoch; the fields of `EpochTotals`.
        best: The best epoch of the phase so far; see `BestEpoch`. Empty before its first validation.
        results: The fields of the `PhaseResult` of each finished phase.
        seconds: Reading of the run's clock when this was saved.
        saved: Time when this was saved, in seconds since 1970.
    """

    start: dict[str, Any] = dataclasses.field(default_factory=dict)
    images: str = ""
    phase: int = 0
    data: dict[str, Any] | None = None
    frozen_depth: int = 0
    tests: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    multipliers: dict[str, float] | None = None
    spans: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    span_start: int = 0
    ended_frozen_depth: int = 0
    extracted: int = 0
    clock_start: dict[str, float] = dataclasses.field(default_factory=dict)
    epoch: dict[str, Any] = dataclasses.field(default_factory=dict)
    best: dict[str, Any] = dataclasses.field(default_factory=dict)
    results: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    saved: float = 0.0

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "RunProgress":
        """Returns the progress that a checkpoint stores, also if version 0.1.0 wrote it."""
        values = _renamed(values)
        for name in ("tests", "spans"):
            values[name] = [_renamed(each) for each in values.get(name, [])]
        tally = values.pop("tally", None)
        if tally:
            values |= _from_tally(tally, values.get("seconds", {}))
        return cls(**values)

    @property
    def history(self) -> list[Measured]:
        """The measurements as a controller gets them."""
        return [Measured(**{**test, "blocks": tuple(test["blocks"])}) for test in self.tests]

    def next_phase(self, result: dict[str, Any]) -> None:
        """Moves on to the start of the next phase.

        Args:
            result: The fields of the `PhaseResult` of the phase that ended.
        """
        self.results.append(result)
        self.phase, self.ended_frozen_depth = self.phase + 1, self.frozen_depth
        self.data, self.frozen_depth, self.tests, self.multipliers = None, 0, [], None
        self.spans, self.span_start = [], 0
        self.extracted, self.clock_start, self.epoch, self.best = 0, {}, {}, {}


def _renamed(values: Mapping[str, Any]) -> dict[str, Any]:
    return {_RENAMED.get(name, name): value for name, value in values.items()}


def _from_tally(tally: Mapping[str, Any], seconds: Mapping[str, float]) -> dict[str, Any]:
    """Returns today's fields for the `tally` of version 0.1.0, which has the seconds of the phase."""
    train = seconds.get("step", 0.0) + seconds.get("wait", 0.0)
    return {
        "extracted": tally["extracted"],
        "epoch": {name: tally[name] for name in ("steps", "sums", "rates", "order")},
        "clock_start": {
            "extract": seconds.get("extract", 0.0) - tally["extract_seconds"],
            "compile": seconds.get("compile", 0.0) - tally["compile_seconds"],
            "step": train - tally["train_seconds"],
            "wait": 0.0,
        },
    }
