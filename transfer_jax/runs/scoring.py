"""Scores of the images of a run while it trains, which are logged."""

from typing import Any, NamedTuple

import numpy as np

from transfer_jax.data import ImageDataset
from transfer_jax.report.metrics_log import MetricsLog
from transfer_jax.runs.phase_clock import PhaseClock
from transfer_jax.tasks import Task
from transfer_jax.training.phase_trainer import Part, PhaseTrainer
from transfer_jax.training.run import Run

_KINDS: dict[Part, str] = {"validation": "evaluation", "training": "training_scores", "test": "test"}
"""The kind of the lines of the log that have the scores of a part of the images."""


class Scored(NamedTuple):
    """The predictions for a part of the images, and their scores.

    Attributes:
        predictions: The predictions, `(images, columns)`.
        scores: Their scores; see `Task.scores`.
    """

    predictions: np.ndarray
    scores: dict[str, Any]


class Scoring:
    """The scores of the images of a run.

    Args:
        run: The run.
        log: Receives the scores.
        clock: Counts the time.
    """

    def __init__(self, run: Run, log: MetricsLog, clock: PhaseClock) -> None:
        self._run, self._log, self._clock = run, log, clock

    def measure(self, trainer: PhaseTrainer, part: Part = "validation", task: Task | None = None) -> Scored:
        """Predicts a part of the images with the current arrays of a phase; logs nothing.

        Args:
            trainer: The phase.
            part: The part of the images.
            task: The task, with thresholds that the validation images have chosen; None takes the run's.
        """
        images, task = self._images(part), task or self._run.task
        with self._clock.on("evaluate", trainer):
            predictions = trainer.predict(part)
            return Scored(predictions, task.scores(predictions, images.labels, images.weights))

    def score(
        self,
        trainer: PhaseTrainer,
        epoch: int,
        step: int,
        part: Part = "validation",
        *,
        kept: bool = False,
        task: Task | None = None,
    ) -> Scored:
        """Predicts a part of the images with the current arrays of a phase, and logs the scores.

        Args:
            trainer: The phase.
            epoch: The epoch of these arrays.
            step: Number of steps since the start of the run.
            part: The part of the images.
            kept: True for the arrays of an earlier epoch, which the phase keeps.
            task: As for `measure`.
        """
        found = self.measure(trainer, part, task)
        kind = "kept" if kept else _KINDS[part]
        self._log.write(step, kind, phase=trainer.parts.phase.name, epoch=epoch, **found.scores)
        return found

    def _images(self, part: Part) -> ImageDataset:
        run = self._run
        images = {"validation": run.evaluation, "training": run.train, "test": run.test}[part]
        assert images is not None  # The caller asks for test images only if there are some.
        return images
