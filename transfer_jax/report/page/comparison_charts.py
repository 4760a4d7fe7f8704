"""The charts of a comparison: curves of all runs, and accuracy against time."""

from collections.abc import Mapping, Sequence
from typing import Any

from transfer_jax.report.page.chart_style import axis, by_series, chart, named, tooltips
from transfer_jax.report.page.elements import Chart, Column, Format, Table
from transfer_jax.report.page.run_files import RunFiles, thin_out
from transfer_jax.storage import workdir_files

_MAX_POINTS = 60
"""The largest number of points of the curve of a run."""
_MAX_COLOURS = 8
"""The largest number of runs with a colour each; more runs are coloured by accuracy."""


def overlaid_curves(runs: Sequence[RunFiles]) -> list[Chart]:
    """Returns charts with the curves of all runs over the epochs."""
    charts = (
        _curves(runs, "Training loss", "train", "loss", "number"),
        _curves(runs, "Validation accuracy", "evaluation", "accuracy", "percent"),
        _curves(runs, "Validation log loss", "evaluation", "log_loss", "number"),
    )
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
        about = {"run": run.name, "accuracy": run.scores.get("accuracy")}
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
            "mark": {"type": "point", "filled": True, "size": 22 if len(rows) < 500 else 8},
            "encoding": {"tooltip": tooltips(columns)},
        },
    ]
    encoding = {
        "x": axis("x", "epoch", "count", scale={"nice": False, "zero": False}),
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
    legend = {"gradientLength": 160, "gradientThickness": 10, "format": ".0%", "tickCount": 3}
    scale = {"scheme": "viridis", "zero": False}
    colour = {
        "field": "accuracy",
        "type": "quantitative",
        "title": "validation accuracy",
        "scale": scale,
    }
    return {"color": {**colour, "legend": legend}}


def accuracy_time_charts(runs: Sequence[RunFiles]) -> list[Chart]:
    """Returns a chart of accuracy against wall time; no chart before the first evaluation."""
    rows = []
    for run in runs:
        goodput = run.json(workdir_files.GOODPUT)
        if run.scores and goodput:
            time = sum(goodput["seconds"].values())
            rows.append({"run": run.name, "seconds": time, "accuracy": run.scores["accuracy"]})
    if not rows:
        return []
    columns = {"run": Column("run"), "seconds": Column("seconds", "seconds")}
    columns["accuracy"] = Column("accuracy", "percent")
    spec = {
        "mark": {"type": "point", "filled": True, "size": 60, "opacity": 0.9},
        "encoding": {
            "x": axis(
                "seconds",
                "wall time of all sessions (seconds, log scale)",
                scale={"type": "log", "padding": 12},
            ),
            "y": axis("accuracy", "validation accuracy", "percent", scale={"zero": False}),
            **_colour(runs),
            "tooltip": tooltips(columns),
        },
    }
    about = "One point for each run. Runs to the left are faster, runs at the top more accurate."
    return [chart("Accuracy against time", about, rows, columns, spec)]
