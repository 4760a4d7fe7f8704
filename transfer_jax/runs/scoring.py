"""Scores of the images of a run while it trains, which are logged."""

import dataclasses
from typing import Any, NamedTuple

from transfer_jax.distributed import processes
from transfer_jax.report.class_scores import FILES, MOST_IN_LOG, ClassScores
from transfer_jax.report.metrics_log import MetricsLog
from transfer_jax.runs.phase_clock import PhaseClock
from transfer_jax.tasks import SingleLabel, Task
from transfer_jax.tasks.confusions import Confusions
from transfer_jax.tasks.top_predictions import Predicted
from transfer_jax.training.phase_trainer import PhaseTrainer
from transfer_jax.training.run import Part, Run

_KINDS: dict[Part, str] = {"validation": "evaluation", "training": "training_scores", "test": "test"}
"""The kind of the lines of the log that have the scores of a part of the images."""


class Scored(NamedTuple):
    """The predictions for a part of the images, and their scores.

    Attributes:
        predictions: The predictions, `(images, columns)`, or the most probable classes of many images.
        scores: Their scores; see `Task.scores`. With more than 50 classes or labels, `classes`, their number,
            and `unevaluated_classes`, the number of those without images, take the place of `per_class`.
        by_class: The scores of each of more than 50 classes; None of fewer.
    """

    predictions: Any
    scores: dict[str, Any]
    by_class: ClassScores | None = None


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
        images, task = self._run.images(part), task or self._run.task
        with self._clock.on("evaluate", trainer):
            predictions = trainer.predict(part)
            scores = task.scores(predictions, images.labels, images.weights)
            return Scored(predictions, *_of_many_classes(task, scores, predictions, images.labels))

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

        The scores of many classes are written to a file, which the next ones replace.

        Args:
            trainer: The phase.
            epoch: The epoch of these arrays.
            step: Number of steps since the start of the run.
            part: The part of the images.
            kept: True for the arrays of an earlier epoch, which the phase keeps.
            task: As for `measure`.
        """
        found = self.measure(trainer, part, task)
        if found.by_class is not None and part in FILES and processes.is_first():
            dataclasses.replace(found.by_class, step=step).write(self._run.workdir / FILES[part])
        kind = "kept" if kept else _KINDS[part]
        self._log.write(step, kind, phase=trainer.parts.phase.name, epoch=epoch, **found.scores)
        return found


def _of_many_classes(
    task: Task, scores: dict[str, Any], predictions: Predicted, labels: Any
) -> tuple[dict[str, Any], ClassScores | None]:
    """Returns scores without those of each class, and these, if there are many classes."""
    per_class = scores.get("per_class", {})
    if len(per_class) <= MOST_IN_LOG:
        return scores, None
    pairs = None
    if isinstance(task, SingleLabel):
        pairs = Confusions.of(labels, task.chosen(predictions), len(task.names))
    empty = sum(not row["images"] for row in per_class.values())
    rest = {name: value for name, value in scores.items() if name not in ("per_class", "confusion")}
    counts = {"classes": len(per_class), "unevaluated_classes": empty}
    return {**rest, **counts}, ClassScores.of(per_class, pairs)
