"""The scores of a model card, with intervals and with the images that they are about."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from transfer_jax.counted import counted
from transfer_jax.report.card.markdown import plain, table
from transfer_jax.report.card.model_facts import ModelFacts
from transfer_jax.report.page.run_files import RunFiles
from transfer_jax.report.predictions import read_predictions
from transfer_jax.report.score_intervals import score_intervals
from transfer_jax.storage import workdir_files
from transfer_jax.tasks import Task

_MOST_ROWS = 50
"""Largest number of classes in a table of scores."""
_COLUMNS = {
    "average_precision": ("average precision", True),
    "precision": ("precision", True),
    "recall": ("recall", True),
    "f1": ("F1", True),
    "mae": ("MAE", False),
    "rmse": ("RMSE", False),
    "r2": ("R²", False),
    "images": ("images", None),
}
"""Titles of the scores of a class or quantity; True for fractions, None for counts."""


@dataclasses.dataclass(frozen=True)
class CardScores:
    """The scores of a finished run.

    Attributes:
        part: `test` or `validation`: the images that the scores are about.
        values: The scores, as `Task.scores` returns them.
        intervals: 95 % intervals by the names of scores.
        chosen_by: The score of the validation images that chose the epochs that are kept; empty if no score
            did.
    """

    part: str
    values: Mapping[str, Any]
    intervals: Mapping[str, tuple[float, float]]
    chosen_by: str


def card_scores(task: Task, run: RunFiles) -> CardScores | None:
    """Returns the scores of the test images, or of the validation images if there are no test images.

    Args:
        task: The task, with its thresholds.
        run: The files of the run.

    Returns:
        The scores; None if there are none.
    """
    part = "test" if run.test_scores else "validation"
    values = run.test_scores or run.scores
    if not values:
        return None
    files = {"test": workdir_files.TEST_PREDICTIONS, "validation": workdir_files.PREDICTIONS}
    path, intervals = workdir_files.predictions_file(run.workdir, files[part]), {}
    if path.is_file():
        found = read_predictions(path)
        if len(found.labels) == values["images"] and len(found.task.names) == len(task.names):
            intervals = score_intervals(task, found.values, found.labels)
            again = task.scores(found.values, found.labels)
            intervals = {name: each for name, each in intervals.items() if _same(values, again, name)}
    chosen_by = next((phase["kept_by"] for phase in run.phases if phase.get("kept_by")), "")
    return CardScores(part, values, intervals, chosen_by)


def _same(values: Mapping[str, Any], again: Mapping[str, Any], name: str) -> bool:
    """Returns whether a score of the rounded predictions is that of the run, so that its interval is too."""
    found, known = again.get(name), values.get(name)
    return found is not None and known is not None and math.isclose(found, known, rel_tol=1e-2, abs_tol=1e-3)


def scores_section(facts: ModelFacts, scores: CardScores | None) -> str:
    """Returns the section with the scores, and what their images were used for."""
    if scores is None:
        return "## Scores\n\nThis folder has no scores of the model."
    rows = []
    for metric in facts.task.metrics:
        value = metric.of(scores.values)
        if value is not None:
            low, high = scores.intervals.get(metric.name, (None, None))
            interval = "" if low is None else f"{metric.text(low)} to {metric.text(high)}"
            rows.append([metric.title, metric.text(value), interval, metric.note])
    parts = [
        "## Scores",
        _about(facts.task, scores),
        table(("score", "value", "95 % interval", "meaning"), rows),
        _by_name(facts.task, scores.values),
    ]
    return "\n\n".join(part for part in parts if part)


def _about(task: Task, scores: CardScores) -> str:
    images = counted(scores.values["images"], f"{scores.part} image")
    text = f"The scores are about {images}. The model was trained on none of them."
    if scores.part == "test":
        text += " They chose nothing."
    elif scores.chosen_by:
        text += (
            f" Their {scores.chosen_by.replace('_', ' ')} chose the epochs that are kept, so that scores on "
            "new images may be lower."
        )
    if scores.part == "validation" and task.kind == "multi_label":
        text += " They also chose the thresholds of the labels."
    if scores.intervals:
        text += " The intervals are about other images of the same kind, not about another training."
    return text


def _by_name(task: Task, values: Mapping[str, Any]) -> str:
    """Returns a table of the scores of each class, label or quantity; empty if there are too many."""
    found = values.get("per_class") or values.get("per_quantity") or {}
    if not found or len(found) > _MOST_ROWS or (len(found) == 1 and task.kind == "regression"):
        return ""
    names = [name for name in _COLUMNS if name in next(iter(found.values()))]
    rows = [[plain(each), *(_cell(name, row[name]) for name in names)] for each, row in found.items()]
    kind = {"multi_label": "label", "regression": "quantity"}.get(task.kind, "class")
    return table((kind, *(_COLUMNS[name][0] for name in names)), rows)


def _cell(name: str, value: float | None) -> str:
    if value is None:
        return ""
    fraction = _COLUMNS[name][1]
    return f"{value:,}" if fraction is None else f"{value:.1%}" if fraction else f"{value:.4g}"
