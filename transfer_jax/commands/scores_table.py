"""Tables of the scores of a model."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import RenderableType

from transfer_jax.counted import counted
from transfer_jax.report.console import table
from transfer_jax.tasks import SingleLabel, task_class

_MOST_CLASSES = 30
"""The largest number of classes in a printed table of scores."""


def scores_table(scores: Mapping[str, Any], images: str = "") -> RenderableType:
    """Returns a table of the scores of `Task.scores` by class, label or quantity.

    Args:
        scores: The scores.
        images: The images that they are about, with their number; by default validation images.
    """
    shown = [
        f"{metric.title} {metric.text(metric.of(scores))}"
        for metric in task_class(scores).metrics
        if metric.of(scores) is not None
    ]
    title = f"{images or counted(scores['images'], 'validation image')}: {', '.join(shown)}"
    if "per_quantity" in scores:
        return table(title, ("quantity", "MAE", "RMSE", "R²"), _quantity_rows(scores["per_quantity"]))
    if absent := sum(not row["images"] for row in scores["per_class"].values()):
        title += f"; {counted(absent, 'class')} without images not evaluated"
    if issubclass(task_class(scores), SingleLabel):
        kinds, of = ("precision", "recall", "f1"), "class"
    else:
        kinds, of = ("average_precision", "precision", "recall", "f1", "threshold"), "label"
    columns = [of, *(_TITLES.get(kind, kind) for kind in kinds), "images"]
    return table(title, columns, _class_rows(scores["per_class"], kinds))


_TITLES = {"f1": "F1", "average_precision": "average precision"}


def _class_rows(classes: Mapping[str, Mapping[str, Any]], kinds: Sequence[str]) -> list[list[str]]:
    """Returns a row for each class; of many classes, those with the lowest F1."""
    shown = [*classes.items()]
    if len(shown) > _MOST_CLASSES:
        evaluated = sorted((item for item in shown if item[1]["images"]), key=lambda item: item[1]["f1"])
        shown = evaluated[:_MOST_CLASSES]
    rows = [
        [name, *(f"{row[kind]:.1%}" if row["images"] else "-" for kind in kinds), f"{row['images']:,}"]
        for name, row in shown
    ]
    if hidden := len(classes) - len(shown):
        rows.append([f"… {hidden:,} more with a higher F1", *[""] * (len(kinds) + 1)])
    return rows


def _quantity_rows(quantities: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """Returns a row for each quantity: its errors with their 95 % intervals."""
    return [
        [name, *(_with_interval(row[kind], row[f"{kind}_interval"]) for kind in ("mae", "rmse", "r2"))]
        for name, row in quantities.items()
    ]


def _with_interval(value: float | None, interval: Sequence[float] | None) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" + ("" if interval is None else f" ({interval[0]:.4g} to {interval[1]:.4g})")
