"""The result of a run."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from transfer_jax.runs.goodput import FILE as GOODPUT


@dataclasses.dataclass(frozen=True, kw_only=True)
class PhaseResult:
    """The result of one phase. Times are wall seconds, over all sessions of the run.

    Attributes:
        name: Name of the phase.
        trainable_parameters: Number of trainable parameters.
        optimizer_bytes: Size of the optimizer state.
        boundary: The boundary of its cached features; None if it trained on images.
        extracted: Number of feature rows that were computed.
        step_flops: Operations of one training step: two for each multiply-add of its convolutions and matrix
            products.
        extract_seconds: Seconds spent computing features.
        compile_seconds: Seconds spent compiling.
        train_seconds: Seconds spent on training steps, with the wait for their batches.
        images_per_second: Training images, or their features, per second of `train_seconds`.
        metrics: Scores on the validation images at the end of the phase; see `evaluation_metrics`.
    """

    name: str
    trainable_parameters: int
    optimizer_bytes: int
    boundary: str | None
    extracted: int
    step_flops: int | None
    extract_seconds: float
    compile_seconds: float
    train_seconds: float
    images_per_second: float
    metrics: dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """The result of a run.

    Attributes:
        workdir: The run's folder; the trained model is in its folder `model`.
        phases: The result of each phase.
    """

    workdir: Path
    phases: tuple[PhaseResult, ...]

    @property
    def goodput(self) -> dict[str, Any]:
        """The wall time by activity, and a verdict on it, as in `goodput.json`; empty if that is damaged."""
        try:
            return json.loads((self.workdir / GOODPUT).read_bytes())
        except (FileNotFoundError, ValueError):
            return {"seconds": {}, "verdict": f"{GOODPUT} is missing or damaged"}

    @property
    def metrics(self) -> dict[str, Any]:
        """Scores on the validation images at the end; see `evaluation_metrics`."""
        return self.phases[-1].metrics
