"""The schedule of a run, planned and carried out, and its curves."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from transfer_jax.report.page.charts import MAX_COLUMNS, color_limits, curves, heat_map
from transfer_jax.report.page.elements import Chart, Charts, Column, Format, Part, Table, Text
from transfer_jax.report.page.formats import rate
from transfer_jax.report.page.run_files import RunFiles, thin_out
from transfer_jax.report.timeline import Timeline

MAX_POINTS = 400
"""Longer curves are thin_out."""


def schedule_parts(run: RunFiles) -> list[Part]:
    """What the schedule says, and heat maps of it as planned and as carried out."""
    parts: list[Part] = [_phases(run)]
    timelines = {"Planned": run.planned(), "Carried out": run.executed()}
    known = {title: each for title, each in timelines.items() if each is not None and each.epochs}
    if not known:
        return parts
    rates = [value for each in known.values() for value in each.rates().ravel() if value > 0]
    limits = color_limits(rates, log=True)
    charts = [timeline_chart(title, each, limits, run.phase_spans()) for title, each in known.items()]
    if len(known) == 2:
        parts.append(Text([_kept_to(known["Planned"], known["Carried out"], run)]))
    return [*parts, Charts(charts)]


def _kept_to(planned: Timeline, executed: Timeline, run: RunFiles) -> str:
    if len(executed.epochs) < len(planned.epochs):
        return f"{len(executed.epochs)} of {len(planned.epochs)} planned epochs are over."
    same = np.allclose(planned.rates(), executed.rates(), rtol=1e-3, equal_nan=True)
    if same:
        return "It was carried out as planned: the same blocks trained, at the same rates, in every epoch."
    if any(phase["controller"] or phase["statistic"] != "none" for phase in run.schedule):
        return "What was carried out differs from the plan: a controller or a statistic had its say."
    return "What was carried out differs from the plan."


def _phases(run: RunFiles) -> Table:
    columns = [Column("phase"), Column("trains", "code"), Column("epochs", "count"), Column("optimizer")]
    columns += [Column("highest rate", "rate"), Column("shape"), Column("trainable parameters", "count")]
    columns += [Column("held-out accuracy", "percent")]
    done = {phase["name"]: phase for phase in run.phases}
    ends = {line["phase"]: line for line in run.evaluations}
    rows = []
    for phase in run.schedule:
        name = phase["name"]
        rows.append([name, phase["train"], phase["epochs"], phase["optimizer"]])
        rows[-1] += [phase["learning_rate"], phase["shape"]]
        rows[-1] += [done.get(name, {}).get("trainable_parameters"), ends.get(name, {}).get("accuracy")]
    return Table("Phases, in order", columns, rows, sortable=False)


def timeline_chart(
    title: str, timeline: Timeline, limits: tuple[float, float], spans: Sequence[Mapping[str, Any]]
) -> Chart:
    """A heat map of rates, blocks by epochs; grey is frozen."""
    rates = timeline.rates()
    groups = np.array_split(np.arange(rates.shape[1]), min(rates.shape[1], MAX_COLUMNS))
    rows = []
    for index, block in enumerate(timeline.blocks):
        for group in groups:
            values = rates[index, group]
            values = values[~np.isnan(values)]
            if len(values):
                cell = {"block": block, "first": int(group[0]), "last": int(group[-1]) + 1}
                rows.append({**cell, "value": float(f"{values.mean():.4g}")})
    return heat_map(
        title,
        "Learning rate of each block in each epoch; grey is frozen.",
        rows,
        blocks=timeline.blocks,
        x="epoch",
        value=Column("learning rate", "rate"),
        spans=spans,
        limits=limits,
        table=_timeline_table(title, timeline),
    )


def _timeline_table(title: str, timeline: Timeline) -> Table:
    """The highest and lowest rate of each block in each phase."""
    rates = timeline.rates()
    phases = list(dict.fromkeys(epoch.phase for epoch in timeline.epochs))
    rows = []
    for index in range(len(timeline.blocks) - 1, -1, -1):
        row = [timeline.blocks[index]]
        for phase in phases:
            values = rates[index, [epoch.phase == phase for epoch in timeline.epochs]]
            values = values[~np.isnan(values)]
            row.append(f"{rate(values.max())} to {rate(values.min())}" if len(values) else "frozen")
        rows.append(row)
    return Table(
        f"{title}: highest and lowest mean rate in an epoch", [Column("block"), *map(Column, phases)], rows
    )


def curve_charts(run: RunFiles) -> list[Chart]:
    """Loss, accuracy and learning rate over the epochs of all phases."""
    train = thin_out([{**line, "at": at} for at, line in enumerate(run.epochs, 1)], MAX_POINTS)
    held_out = thin_out(run.evaluations, MAX_POINTS)
    spans = [{**span, "first": span["first"] + 0.5, "last": span["last"] + 0.5} for span in run.phase_spans()]
    about = "Training: the mean over the epoch, with augmentation and dropout. Held out: as it will be used."
    epoch = Column("epoch", "count")
    charts = []
    shown: tuple[tuple[str, str, str, Format], ...] = (
        ("Loss", "loss", "log_loss", "number"),
        ("Accuracy", "accuracy", "accuracy", "percent"),
    )
    for title, name, name_held_out, form in shown:
        rows = [*_points("training", train, name), *_points("held out", held_out, name_held_out)]
        if rows:
            y, names = Column(title.lower(), form), ["training", "held out"]
            charts.append(curves(title, about, rows, x=epoch, y=y, names=names, spans=spans))
    rates = [row for row in _points("rate", train, "learning_rate") if row["y"] > 0]
    if rates:
        y = Column("learning rate", "rate")
        said = "Of the head, the highest of all blocks, as a mean over the epoch."
        charts.append(
            curves("Learning rate", said, rates, x=epoch, y=y, names=["rate"], spans=spans, log=True)
        )
    return charts


def _points(series: str, lines: Sequence[Mapping[str, Any]], name: str) -> list[dict[str, Any]]:
    return [
        {"series": series, "x": line["at"], "y": float(f"{line[name]:.5g}")}
        for line in lines
        if line.get(name) is not None
    ]
