"""Vega-Lite charts: curves over epochs, heat maps of blocks, bars, and the confusion matrix."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from transfer_jax.report.page.chart_style import (
    COLOURS,
    FROZEN,
    HEAT,
    INK,
    MUTED,
    PLAIN,
    axis,
    by_series,
    chart,
    named,
    tooltips,
)
from transfer_jax.report.page.elements import Chart, Column, Format, Table, replace_nonfinite
from transfer_jax.tasks.confusions import Confusions

MAX_COLUMNS = 150
"""The largest number of columns of a heat map; more epochs are averaged."""

_MOST_CLASSES = 40
"""The largest number of classes of a confusion matrix."""
_FEW = 6
"""The number of epochs or steps from which on an axis shows round numbers only."""
_LETTER, _PHONE = 6.5, 250
"""Pixels: the width of a letter of a label, and the width of the bars on a phone."""


def curves(
    title: str,
    about: str,
    rows: Sequence[Mapping[str, Any]],
    *,
    x: Column,
    y: Column,
    names: Sequence[str],
    spans: Sequence[Mapping[str, Any]] = (),
    log: bool = False,
) -> Chart:
    """Returns a chart of curves; a click on the legend highlights one.

    Args:
        title: The title.
        about: An explanation of the chart.
        rows: The points, with `series`, `x` and `y`.
        x: The name and format of `x`.
        y: The name and format of `y`.
        names: The names of the series, in order.
        spans: The phases on the x axis, with `name`, `first` and `last`.
        log: Whether `y` has a logarithmic scale.
    """
    columns = {"series": Column("series"), "x": x, "y": y}
    if len(names) < 2:
        del columns["series"]
    marks = by_series(names)
    across = _x_scale([row["x"] for row in rows], spans)
    up = axis("y", y.name, y.format, scale={"type": "log"} if log else {"zero": False})
    if log:
        up["axis"] |= {"values": powers_of_ten([row["y"] for row in rows])}
    layers: list[dict[str, Any]] = [
        {
            "params": [{"name": "pick", "select": {"type": "point", "fields": ["series"]}, "bind": "legend"}],
            "mark": {"type": "line", "strokeWidth": 2},
            "encoding": {
                **{name: marks[name] for name in ("color", "strokeDash")},
                "opacity": _highlight("pick"),
            },
        },
        {
            "mark": {"type": "point", "filled": True, "size": 30 if len(rows) <= 150 else 12},
            "encoding": {
                **{name: marks[name] for name in ("color", "shape")},
                "opacity": _highlight("pick"),
                "tooltip": tooltips(columns),
            },
        },
    ]
    spec = {
        "encoding": {
            "x": _across("x", x.name, x.format, across),
            "y": up,
        },
        "layer": layers,
    }
    if spans:
        spec = {**spec, "layer": [*_span_marks(spans, across), *layers]}
        for layer in layers:
            layer["encoding"] |= spec["encoding"]
        del spec["encoding"]
    return chart(title, about, rows, columns, spec)


def _x_scale(values: Sequence[float], spans: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns a scale from the lowest to the highest of the values and spans."""
    ends = [*values, *(span[end] for span in spans for end in ("first", "last"))]
    return {"nice": False, "domain": [min(ends), max(ends)]}


def _across(field: str, title: str, form: Format, scale: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the encoding of the x axis; a short axis of counts has a label at each whole number."""
    found = axis(field, title, form, scale=scale)
    first, last = math.ceil(scale["domain"][0]), math.floor(scale["domain"][1])
    if form == "count" and last - first < _FEW:
        found["axis"] |= {"values": [*range(first, last + 1)]}
    return found


def _highlight(name: str) -> dict[str, Any]:
    return {"condition": {"param": name, "value": 1}, "value": 0.15}


def powers_of_ten(values: Sequence[float]) -> list[float]:
    """Returns the powers of ten around and between the values."""
    ends = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return [10.0**power for power in range(ends[0], ends[1] + 1)]


def _span_marks(spans: Sequence[Mapping[str, Any]], scale: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns a line where each span starts, and its name where there is room."""
    whole = max(span["last"] for span in spans) - min(span["first"] for span in spans) or 1
    room = f"(datum.last - datum.first) / {whole} * width > 8 * length(datum.name) + 4"
    x = {"field": "first", "type": "quantitative", "scale": scale}
    data = {"values": list(spans)}
    rules = {"type": "rule", "color": MUTED, "strokeDash": [2, 3], "opacity": 0.7}
    names = {"type": "text", "align": "left", "baseline": "bottom", "dx": 2, "dy": -2, "color": MUTED}
    return [
        {
            "data": data,
            "transform": [{"filter": f"datum.first > {spans[0]['first']}"}],
            "mark": rules,
            "encoding": {"x": x},
        },
        {
            "data": data,
            "transform": [{"filter": room}],
            "mark": names,
            "encoding": {"x": x, "y": {"value": 0}, "text": {"field": "name"}},
        },
    ]


def heat_map(
    title: str,
    about: str,
    rows: Sequence[Mapping[str, Any]],
    *,
    blocks: Sequence[str],
    x: str,
    value: Column,
    spans: Sequence[Mapping[str, Any]] = (),
    limits: tuple[float, float] | None = None,
    log: bool = True,
    table: Table | None = None,
) -> Chart:
    """Returns a heat map of blocks, from the input at the bottom to the head on top, by epochs or steps.

    Args:
        title: The title.
        about: An explanation of the chart.
        rows: The cells, with `block`, `first` and `last` on the x axis, and `value`; None for no value.
        blocks: The blocks, input side first.
        x: The name of the x axis.
        value: The name and format of the value.
        spans: The phases on the x axis; see `curves`.
        limits: The values of the lowest and highest colour, for charts that share a scale; those of the rows
            by default.
        log: Whether the colours have a logarithmic scale.
        table: The table below the chart; a row for each cell by default.
    """
    rows = replace_nonfinite(
        [row for row in rows if row["value"] is not None and (row["value"] > 0 or not log)]
    )
    rows = [row for row in rows if row["value"] is not None]
    last = max([row["last"] for row in rows] + [span["last"] for span in spans], default=1)
    columns = {"block": Column("block"), "first": Column(f"from {x}", "count")}
    columns |= {"last": Column(f"to {x}", "count"), "value": value}
    low, high = limits or color_limits([row["value"] for row in rows], log=log)
    colour = {"scheme": "viridis", "domain": [low, high], "clamp": True, **({"type": "log"} if log else {})}
    legend = {"gradientLength": 180, "gradientThickness": 10, "titleOrient": "left", "tickCount": 3}
    legend |= {"format": ".0%" if value.format == "percent" else PLAIN, "orient": "bottom"}
    named = None if value.name == title.lower() else value.name
    across = {"nice": False, "domain": [0, last]}
    cells = {
        "mark": {"type": "rect"},
        "encoding": {
            "x": _across("first", x, "count", across),
            "x2": {"field": "last"},
            "y": {
                "field": "block",
                "type": "nominal",
                "title": None,
                "scale": {"domain": list(reversed(blocks))},
            },
            "color": axis("value", named, scale=colour, legend=legend),
            "tooltip": tooltips(columns),
        },
    }
    del cells["encoding"]["color"]["axis"]
    spec = {
        "height": len(blocks) * (15 if len(blocks) <= 24 else 11),
        "view": {"fill": FROZEN},
        "layer": [cells, *_span_marks(spans, across)] if spans else [cells],
    }
    return chart(title, about, rows, columns, spec, table=table)


def color_limits(values: Sequence[float], *, log: bool) -> tuple[float, float]:
    """Returns the values of the lowest and highest colour.

    On a logarithmic scale, the lowest is at least a ten-thousandth of the highest.
    """
    high = max(values, default=1.0)
    low = min(values, default=0.1)
    if log:
        low = max(low, high * 1e-4)
        return (low, high) if low < high else (high / 10, high)
    return (low, high) if low < high else (low - 0.5, high + 0.5)


def bars(
    title: str,
    about: str,
    rows: Sequence[Mapping[str, Any]],
    *,
    names: Sequence[str],
    name: Column,
    value: Column,
    shown: str | None = None,
) -> Chart:
    """Returns a chart of horizontal bars.

    Args:
        title: The title.
        about: An explanation of the chart.
        rows: The bars, with `name` and `value`.
        names: The names of the bars, from the top.
        name: The name and format of `name`.
        value: The name and format of `value`.
        shown: The field of a row that is the label of its bar; no labels by default.
    """
    columns = {"name": name, "value": value}
    y = {"field": "name", "type": "nominal", "title": None, "scale": {"domain": list(names)}}
    x = axis("value", value.name, value.format)
    x["axis"] |= {"tickCount": 6}
    layer: list[dict[str, Any]] = [
        {"mark": {"type": "bar", "color": COLOURS[0]}, "encoding": {"tooltip": tooltips(columns)}}
    ]
    if shown:
        end = max((_end_of_label(row, shown) for row in rows), default=1.0) or 1
        x["scale"] = {"domain": [0, end], "nice": False}
        mark = {"type": "text", "align": "left", "dx": 5, "color": INK}
        layer.append({"mark": mark, "encoding": {"text": {"field": shown}}})
    return chart(
        title, about, rows, columns, {"height": 22 * len(names), "encoding": {"x": x, "y": y}, "layer": layer}
    )


def _end_of_label(row: Mapping[str, Any], shown: str) -> float:
    """Returns the lowest end of the x axis that has room for the label of a bar, on a phone as well."""
    return row["value"] / (1 - min(_LETTER * (len(row[shown]) + 2) / _PHONE, 0.8))


def confusion(classes: Sequence[str], confusions: Confusions) -> Chart:
    """Returns a confusion matrix: the number of images, coloured by the fraction of the true class.

    Of many classes, it shows those with the most misclassified images.
    """
    shown = confusions.most_confused(_MOST_CLASSES)
    title, about = "Confusion matrix", "Each row is a true class and each column a predicted class."
    if len(shown) < len(classes):
        title += f" of {len(shown)} of {len(classes):,} classes"
        about += " These classes have the most misclassified images."
    totals, matrix = np.maximum(confusions.present[shown], 1).tolist(), confusions.matrix(shown).tolist()
    classes = [classes[int(place)] for place in shown]
    rows = [
        {"true": true, "predicted": predicted, "images": images, "share": images / total}
        for true, line, total in zip(classes, matrix, totals, strict=True)
        for predicted, images in zip(classes, line, strict=True)
    ]
    columns = {"true": Column("true"), "predicted": Column("predicted"), "images": Column("images", "count")}
    columns["share"] = Column("fraction of the true class", "percent")
    angle = 0 if sum(map(len, classes)) <= 40 else -40
    sides = {"type": "nominal", "scale": {"domain": list(classes), "padding": 0.04}}
    opacity = {"field": "share", "type": "quantitative", "legend": None}
    opacity["scale"] = {"domain": [0, 1], "range": [0.05, 0.7]}
    layer = [
        {
            "mark": {"type": "rect", "color": HEAT},
            "encoding": {"opacity": opacity, "tooltip": tooltips(columns)},
        }
    ]
    if len(classes) <= 20:
        layer.append(
            {"mark": {"type": "text", "color": INK}, "encoding": {"text": {"field": "images"}}}  # pyright: ignore
        )
    spec = {
        "height": len(classes) * max(min(300 // max(len(classes), 1), 56), 12),
        "encoding": {
            "x": {"field": "predicted", **sides, "axis": {"labelAngle": angle, **named(classes)}},
            "y": {"field": "true", **sides, "axis": named(classes)},
        },
        "layer": layer,
    }
    table = Table(
        "Images by true class (rows) and predicted class (columns)",
        [Column("true class"), *(Column(name, "count") for name in classes)],
        [[name, *line] for name, line in zip(classes, matrix, strict=True)],
    )
    return chart(title, f"{about} The diagonal is correct.", rows, columns, spec, table=table)
