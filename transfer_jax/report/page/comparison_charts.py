"""The charts of a comparison: curves of all runs, and accuracy against time."""

from collections.abc import Mapping, Sequence
from typing import Any

from transfer_jax.report.page.chart_style import axis, by_series, chart, named, tooltips
from transfer_jax.report.page.elements import Chart, Column, Format, Table
from transfer_jax.report.page.run_files import RunFiles, thin_out
from transfer_jax.storage import workdir_files
from transfer_jax.tasks import SingleLabel, Task, task_class

_MAX_POINTS = 60
"""The largest number of points of the curve of a run."""
_MAX_COLOURS = 8
"""The largest number of runs with a colour each; more runs are coloured by accuracy."""


def common_task(runs: Sequence[RunFiles]) -> type[Task]:
    """Returns the task of the runs that have scores.

    Raises:
        ValueError: If they have several tasks, whose scores cannot be compared.
    """
    kinds = {task_class(run.scores) for run in runs if run.scores} or {SingleLabel}
    if len(kinds) > 1:
        names = " and ".join(sorted(task.kind for task in kinds))
        raise ValueError(
            f"the runs have the tasks {names}, whose scores are different; compare those of one task"
        )
    return kinds.pop()


def overlaid_curves(runs: Sequence[RunFiles]) -> list[Chart]:
    """Returns charts with the curves of all runs over the epochs."""
    task = common_task(runs)
    charts = [_curves(runs, "Training loss", "train", "loss", "number")]
    for metric in (task.metrics[0], task.objective):
        charts.append(_curves(runs, f"Validation {metric.title}", "evaluation", metric.name, metric.format))
    return [each for each in charts if each is not None]


def _curves(runs: Sequence[RunFiles], title: str, kind: str, name: str, form: Format) -> Chart | None:
    rows, ends = [], []
    for run in runs:
        lines: Sequence[Mapping[str, Any]] = run.evaluations
        if kind == "train":
            lines = [{**line, "at": at} for at, line in enumerate(run.epochs, 1)]
        lines = thin_out([line for line in lines if line.get(name) is not None], _MAX_POINTS)
        if not lines:
            continue
        about = {"run": run.name, "score": common_task(runs).metrics[0].of(run.scores)}
        rows += [{**about, "x": line["at"], "y": float(f"{line[name]:.4g}")} for line in lines]
        values = [line[name] for line in lines]
        ends.append([run.name, lines[-1]["at"], values[0], values[-1], min(values), max(values)])
    if not rows:
        return None
    columns = {"run": Column("run"), "x": Column("epoch", "count"), "y": Column(title.lower(), form)}
    width = {"condition": {"param": "hover", "empty": False, "value": 4}, "value": 1.5}
    layer = [
        {
            "params": [
                {"name": "hover", "select": {"type": "point", "fields": ["run"], "on": "pointerover"}}
            ],
            "mark": {"type": "line", "opacity": 0.85},
            "encoding": {
                "detail": {"field": "run"},
                "size": width,
                "tooltip": tooltips({"run": columns["run"]}),
            },
        },
        {
            "mark": {"type": "point", "filled": True, "size": 40 if len(rows) < 200 else 8},
            "encoding": {"tooltip": tooltips(columns)},
        },
    ]
    encoding = {
        "x": axis("x", "epoch", "count", scale={"nice": False, "zero": False, "padding": 8}),
        "y": axis("y", title.lower(), form, scale={"zero": False}),
        **_colour(runs),
    }
    table = Table(
        title,
        [
            Column("run"),
            Column("epochs", "count"),
            *(Column(each, form) for each in ("first", "last", "lowest", "highest")),
        ],
        ends,
    )
    about = "One line for each run. A run with one point was evaluated only at its end."
    if kind == "train":
        about = "One line for each run: mean over the epoch, with augmentation and dropout."
    return chart(title, about, rows, columns, {"encoding": encoding, "layer": layer}, table=table)


def _colour(runs: Sequence[RunFiles]) -> dict[str, Any]:
    names = [run.name for run in runs]
    if len(names) <= _MAX_COLOURS:
        legend = {"title": None, "columns": 2, **named(names)}
        return {"color": {**by_series(names, "run")["color"], "legend": legend}}
    headline = common_task(runs).metrics[0]
    form = ".0%" if headline.format == "percent" else ".3g"
    legend = {"gradientLength": 160, "gradientThickness": 10, "format": form, "tickCount": 3}
    scale = {"scheme": "viridis", "zero": False}
    colour = {
        "field": "score",
        "type": "quantitative",
        "title": f"validation {headline.title}",
        "scale": scale,
    }
    return {"color": {**colour, "legend": legend}}


def score_time_charts(runs: Sequence[RunFiles]) -> list[Chart]:
    """Returns a chart of the most important score against wall time; no chart before the first evaluation."""
    rows, headline = [], common_task(runs).metrics[0]
    for run in runs:
        goodput = run.json(workdir_files.GOODPUT)
        if run.scores and goodput:
            time = sum(goodput["seconds"].values())
            rows.append({"run": run.name, "seconds": time, "score": headline.of(run.scores)})
    if not rows:
        return []
    columns = {"run": Column("run"), "seconds": Column("seconds", "seconds")}
    columns["score"] = Column(headline.title, headline.format)
    spec = {
        "mark": {"type": "point", "filled": True, "size": 60, "opacity": 0.9},
        "encoding": {
            "x": axis(
                "seconds",
                "wall time of all sessions (seconds, log scale)",
                scale={"type": "log", "padding": 12},
            ),
            "y": axis("score", f"validation {headline.title}", headline.format, scale={"zero": False}),
            **_colour(runs),
            "tooltip": tooltips(columns),
        },
    }
    about = "One point for each run. Runs to the left are faster, runs at the top more accurate."
    return [chart("Accuracy against time", about, rows, columns, spec)]
