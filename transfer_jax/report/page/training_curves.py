"""The training curves of a run: loss, score and learning rate by epoch."""

from collections.abc import Mapping, Sequence
from typing import Any

from transfer_jax.report.page.charts import curves
from transfer_jax.report.page.elements import Chart, Column, Format
from transfer_jax.report.page.run_files import RunFiles, thin_out
from transfer_jax.tasks import task_class

_MAX_POINTS = 400
"""The largest number of points of a curve; longer curves are thinned."""


def curve_charts(run: RunFiles) -> list[Chart]:
    """Returns the charts of loss, score and learning rate over the epochs of all phases."""
    task = task_class(run.scores)
    score = task.step_metric
    train = thin_out([{**line, "at": at} for at, line in enumerate(run.epochs, 1)], _MAX_POINTS)
    validation = thin_out(run.evaluations, _MAX_POINTS)
    spans = [{**span, "first": span["first"] + 0.5, "last": span["last"] + 0.5} for span in run.phase_spans()]
    about = "Training: mean over the epoch, with augmentation and dropout. Validation: without them."
    epoch = Column("epoch", "count")
    charts = []
    shown: tuple[tuple[str, str, str, Format], ...] = (
        ("Loss", "loss", task.objective.name, "number"),
        (score.title[:1].upper() + score.title[1:], score.name, score.name, score.format),
    )
    for title, name, validation_name, form in shown:
        rows = [*_points("training", train, name), *_points("validation", validation, validation_name)]
        if rows:
            y, names = Column(title.lower(), form), ["training", "validation"]
            charts.append(curves(title, about, rows, x=epoch, y=y, names=names, spans=spans))
    rates = [row for row in _points("rate", train, "learning_rate") if row["y"] > 0]
    if rates:
        y = Column("learning rate", "rate")
        about = "Learning rate of the head, the highest of all blocks: mean over the epoch."
        charts.append(
            curves("Learning rate", about, rates, x=epoch, y=y, names=["rate"], spans=spans, log=True)
        )
    return charts


def _points(series: str, lines: Sequence[Mapping[str, Any]], name: str) -> list[dict[str, Any]]:
    return [
        {"series": series, "x": line["at"], "y": float(f"{line[name]:.5g}")}
        for line in lines
        if line.get(name) is not None
    ]
