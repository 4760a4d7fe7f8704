"""The result of a run."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from transfer_jax.report.class_scores import FILES, ClassScores
from transfer_jax.report.kept_epochs import kept_epoch_text
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
        metrics: Scores of the validation images with the weights that the phase keeps; see `Task.scores`.
        planned_epochs: Number of epochs of the phase in the schedule; 0 if an earlier version trained it.
        epochs: Number of epochs that it trained, fewer than planned if it ended early; 0 if an earlier
            version trained it.
        kept_epoch: The epoch whose weights it keeps; 0 for those before the phase, which is undone then; None
            if an earlier version trained it.
        kept_by: The score of the validation images that chose the epoch; empty if the last one is kept.
        kept_value: The value of that score in the epoch that is kept.
        start_value: The value before the phase; None in the first phase.
        end_value: The value after its last epoch.
        gain: The gain of the best epoch in that score, positive if the score is better: in the first phase
            over the last epoch, in a later one over the start of the phase. None if there is no gain.
        gain_error: The standard error of the gain; the best epoch is kept if the gain is more than twice it.
        gain_epoch: The epoch that they are about.
        headline: The headline score of the task, if it is another one: the best epoch of a later phase is
            also kept if its gain in this one is more than twice its standard error. Else empty.
        headline_gain: The gain in it of the same epoch over the start of the phase.
        headline_gain_error: Its standard error; 0 if it is unknown.
        test_metrics: Scores of the test images with the final weights, in the last phase; empty in others and
            without test images.
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
    planned_epochs: int = 0
    epochs: int = 0
    kept_epoch: int | None = None
    kept_by: str = ""
    kept_value: float | None = None
    start_value: float | None = None
    end_value: float | None = None
    gain: float | None = None
    gain_error: float | None = None
    gain_epoch: int | None = None
    headline: str = ""
    headline_gain: float | None = None
    headline_gain_error: float | None = None
    test_metrics: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def undone(self) -> bool:
        """True if the phase did not make the model clearly better, so that it keeps the weights before it."""
        return self.kept_epoch == 0

    @property
    def choice(self) -> str:
        """A sentence on the epoch that the phase keeps; empty if it keeps the last one without a choice."""
        return kept_epoch_text(dataclasses.asdict(self))


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
        """Scores of the validation images, which chose the epochs that are kept; see `Task.scores`."""
        return self.phases[-1].metrics

    @property
    def test_metrics(self) -> dict[str, Any]:
        """Scores of the test images, which chose nothing; empty if there are none."""
        return self.phases[-1].test_metrics

    @property
    def class_scores(self) -> dict[str, dict[str, Any]]:
        """Scores of the validation images by class or label; empty for regression.

        With more than 50 classes they are in `class_scores.npz` only, and `metrics` does not have them.
        """
        return self._by_class(self.metrics, "validation")

    @property
    def test_class_scores(self) -> dict[str, dict[str, Any]]:
        """Scores of the test images by class or label; empty without test images, and for regression."""
        return self._by_class(self.test_metrics, "test")

    def _by_class(
        self, scores: Mapping[str, Any], part: Literal["validation", "test"]
    ) -> dict[str, dict[str, Any]]:
        if "classes" not in scores:
            return scores.get("per_class", {})
        found = ClassScores.read(self.workdir / FILES[part])
        return {} if found is None else found.rows()
