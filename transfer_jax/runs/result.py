"""What a run did."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from transfer_jax.runs.goodput import FILE as GOODPUT


@dataclasses.dataclass(frozen=True, kw_only=True)
class PhaseResult:
    """What one phase did; times are wall seconds, over all sessions of the run.

    Attributes:
        name: Its name.
        trainable_parameters: Number of parameters that trained.
        optimizer_bytes: Size of the optimizer's state.
        boundary: Where its cached features were taken; None if it trained on images.
        extracted: Feature rows that had to be computed.
        step_flops: Operations of one training step: two for each multiply-add of its convolutions and matrix
            products.
        extract_seconds: Computing features.
        compile_seconds: Compiling.
        train_seconds: Training steps, with the wait for their input.
        images_per_second: Training images, or their features, a second of `train_seconds`.
        metrics: Scores on the held-out images at the end of the phase.
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
    """What a run did.

    Attributes:
        workdir: Its folder; the trained model is in `model` there.
        phases: What each phase did.
    """

    workdir: Path
    phases: tuple[PhaseResult, ...]

    @property
    def goodput(self) -> dict[str, Any]:
        """Where the time went, and a verdict on it; see `Goodput.save`."""
        return json.loads((self.workdir / GOODPUT).read_text())

    @property
    def metrics(self) -> dict[str, Any]:
        """Scores on the held-out images at the end; see `evaluation_metrics`."""
        return self.phases[-1].metrics
