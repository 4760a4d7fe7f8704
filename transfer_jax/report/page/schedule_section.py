"""The schedule section of a run: the phases, and heat maps of the planned and the executed schedule."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from transfer_jax.counted import counted
from transfer_jax.fields import shown_object
from transfer_jax.report.kept_epochs import kept_epoch_text
from transfer_jax.report.page.charts import MAX_COLUMNS, color_limits, heat_map
from transfer_jax.report.page.elements import Chart, Charts, Column, Part, Table, Text
from transfer_jax.report.page.formats import rate
from transfer_jax.report.page.run_files import RunFiles
from transfer_jax.report.rate_timeline import Timeline
from transfer_jax.tasks import task_class


def schedule_parts(run: RunFiles) -> list[Part]:
    """Returns a table of the phases, and heat maps of the schedule as planned and as executed."""
    parts: list[Part] = [_phases(run)]
    if kept := [text[:1].upper() + text[1:] + "." for text in map(kept_epoch_text, run.phases) if text]:
        parts.append(Text(kept))
    timelines = {"Planned": run.planned(), "Executed": run.executed()}
    known = {title: each for title, each in timelines.items() if each is not None and each.epochs}
    if not known:
        return parts
    rates = [value for each in known.values() for value in each.rates().ravel() if value > 0]
    limits = color_limits(rates, log=True)
    charts = [timeline_chart(title, each, limits, run.phase_spans()) for title, each in known.items()]
    if len(known) == 2:
        parts.append(Text([_compare_with_plan(known["Planned"], known["Executed"], run)]))
    return [*parts, Charts(charts)]


def _compare_with_plan(planned: Timeline, executed: Timeline, run: RunFiles) -> str:
    if len(executed.epochs) < len(planned.epochs) and not run.finished:
        return f"{len(executed.epochs)} of {counted(len(planned.epochs), 'planned epoch')} are finished."
    same = len(executed.epochs) == len(planned.epochs) and np.allclose(
        planned.rates(), executed.rates(), rtol=1e-3, equal_nan=True
    )
    if same:
        return (
            "The executed schedule equals the plan: in every epoch, the same blocks train at the same rates."
        )
    if any(0 < phase.get("epochs", 0) < phase.get("planned_epochs", 0) for phase in run.phases):
        return "The executed schedule differs from the plan, because a phase ended early."
    if any(phase["controller"] or phase["statistic"] != "none" for phase in run.schedule):
        return "The executed schedule differs from the plan, because a controller or a statistic changed it."
    return "The executed schedule differs from the plan."


def _phases(run: RunFiles) -> Table:
    headline = task_class(run.scores).metrics[0]
    columns = [
        Column("phase"),
        Column("trainable", "code"),
        Column("epochs", "count"),
        Column("optimizer"),
        Column("highest learning rate", "rate"),
        Column("learning-rate schedule"),
        Column("trainable parameters", "count"),
        Column(f"validation {headline.title}", headline.format),
    ]
    done = {phase["name"]: phase for phase in run.phases}
    ends = {line["phase"]: line for line in run.lines_of_kind("evaluation", "kept")}
    rows = []
    for phase in run.schedule:
        name = phase["name"]
        rows.append([name, phase["train"], phase["epochs"], shown_object(phase["optimizer"])])
        rows[-1] += [phase["learning_rate"], shown_object(phase["shape"])]
        rows[-1] += [done.get(name, {}).get("trainable_parameters"), ends.get(name, {}).get(headline.name)]
    return Table("Phases, in order", columns, rows, sortable=False)


def timeline_chart(
    title: str, timeline: Timeline, limits: tuple[float, float], spans: Sequence[Mapping[str, Any]]
) -> Chart:
    """Returns a heat map of the learning rates by block and epoch; frozen blocks are grey."""
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
        "Learning rate of each block in each epoch. Grey means frozen.",
        rows,
        blocks=timeline.blocks,
        x="epoch",
        value=Column("learning rate", "rate"),
        spans=spans,
        limits=limits,
        table=_timeline_table(title, timeline),
    )


def _timeline_table(title: str, timeline: Timeline) -> Table:
    """Returns a table of the highest and lowest rate of each block in each phase."""
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
    caption = f"{title}: highest and lowest learning rate by block and phase (means over an epoch)"
    return Table(caption, [Column("block"), *map(Column, phases)], rows)
