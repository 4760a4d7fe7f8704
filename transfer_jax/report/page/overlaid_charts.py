"""Charts of several runs over each other."""

from collections.abc import Mapping, Sequence
from typing import Any

from transfer_jax.report.page.chart_style import axis, by_series, chart, hints
from transfer_jax.report.page.elements import Chart, Column, Format, Table
from transfer_jax.report.page.run_files import Record, thinned
from transfer_jax.storage import workdir_files

_MOST_POINTS = 60
"""Of a run's curve."""
_MOST_COLOURS = 8
"""More runs than that are coloured by their accuracy."""


def overlaid(records: Sequence[Record]) -> list[Chart]:
    """Curves of all runs over the epochs."""
    made = (
        _curves(records, "Loss in training", "train", "loss", "number"),
        _curves(records, "Held-out accuracy", "evaluation", "accuracy", "percent"),
        _curves(records, "Held-out log loss", "evaluation", "log_loss", "number"),
    )
    return [each for each in made if each is not None]


def _curves(records: Sequence[Record], title: str, kind: str, name: str, form: Format) -> Chart | None:
    rows, ends = [], []
    for record in records:
        lines: Sequence[Mapping[str, Any]] = record.evaluations
        if kind == "train":
            lines = [{**line, "at": at} for at, line in enumerate(record.epochs, 1)]
        lines = thinned([line for line in lines if line.get(name) is not None], _MOST_POINTS)
        if not lines:
            continue
        about = {"run": record.name, "accuracy": record.scores.get("accuracy")}
        rows += [{**about, "x": line["at"], "y": float(f"{line[name]:.4g}")} for line in lines]
        values = [line[name] for line in lines]
        ends.append([record.name, lines[-1]["at"], values[0], values[-1], min(values), max(values)])
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
                "tooltip": hints({"run": columns["run"]}),
            },
        },
        {
            "mark": {"type": "point", "filled": True, "size": 22 if len(rows) < 500 else 8},
            "encoding": {"tooltip": hints(columns)},
        },
    ]
    encoding = {
        "x": axis("x", "epoch", "count", scale={"nice": False, "zero": False}),
        "y": axis("y", title.lower(), form, scale={"zero": False}),
        **_colour(records),
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
    about = "A line a run. Those with one point were scored at their end only."
    if kind == "train":
        about = "A line a run: means over the epoch, with augmentation and dropout."
    return chart(title, about, rows, columns, {"encoding": encoding, "layer": layer}, table=table)


def _colour(records: Sequence[Record]) -> dict[str, Any]:
    names = [record.name for record in records]
    if len(names) <= _MOST_COLOURS:
        return {"color": {**by_series(names, "run")["color"], "legend": {"title": None, "columns": 2}}}
    legend = {"gradientLength": 160, "gradientThickness": 10, "format": ".0%", "tickCount": 3}
    scale = {"scheme": "viridis", "zero": False}
    colour = {"field": "accuracy", "type": "quantitative", "title": "last accuracy", "scale": scale}
    return {"color": {**colour, "legend": legend}}


def scattered(records: Sequence[Record]) -> list[Chart]:
    """Accuracy against what it took."""
    rows = []
    for record in records:
        goodput = record.json(workdir_files.GOODPUT)
        if record.scores and goodput:
            time = sum(goodput["seconds"].values())
            rows.append({"run": record.name, "seconds": time, "accuracy": record.scores["accuracy"]})
    if not rows:
        return []
    columns = {"run": Column("run"), "seconds": Column("seconds", "seconds")}
    columns["accuracy"] = Column("accuracy", "percent")
    spec = {
        "mark": {"type": "point", "filled": True, "size": 60, "opacity": 0.9},
        "encoding": {
            "x": axis(
                "seconds",
                "wall time of all sessions, seconds, logarithmic",
                scale={"type": "log", "padding": 12},
            ),
            "y": axis("accuracy", "held-out accuracy", "percent", scale={"zero": False}),
            **_colour(records),
            "tooltip": hints(columns),
        },
    }
    about = "A point a run; to the left is quicker, up is better."
    return [chart("Accuracy against time", about, rows, columns, spec)]
