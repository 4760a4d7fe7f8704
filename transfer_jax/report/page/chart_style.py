"""The common parts of all charts: theme, colours, shapes, dashes, axes, tooltips and data tables.

Colours are variables of `templates/style.css`, so a chart suits light pages, dark pages and print.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from transfer_jax.report.names import abridge
from transfer_jax.report.page.elements import Chart, Column, Format, Table, replace_nonfinite

INK, MUTED, LINE, FROZEN, HEAT = (f"var(--{name})" for name in ("ink", "muted", "line", "frozen", "heat"))
COLOURS = tuple(f"var(--c{index})" for index in range(1, 9))
"""The colours of series, after Okabe and Ito, which colour-blind readers can distinguish.

Shapes and dashes also distinguish the series.
"""
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right", "stroke")
DASHES = ([1, 0], [6, 3], [2, 2], [8, 3, 2, 3], [4, 4], [1, 3], [10, 4], [3, 1])
HEIGHT = 230
_NAME_WIDTH = 30
"""The largest width of a name at an axis and in a legend, in columns of a terminal."""

CONFIG: dict[str, Any] = {
    "aria": False,  # The page has its own label and a table of the data.
    "background": None,
    "font": "system-ui, sans-serif",
    "view": {"stroke": None},
    "range": {"category": list(COLOURS)},
    "axis": {
        "labelColor": MUTED,
        "titleColor": MUTED,
        "titleFontWeight": "normal",
        "labelFontSize": 11,
        "titleFontSize": 11,
        "titlePadding": 10,
        "domainColor": LINE,
        "tickColor": LINE,
        "gridColor": LINE,
    },
    "axisX": {"grid": False, "labelOverlap": True},
    "axisY": {"tickCount": 5, "domain": False, "ticks": False},
    "legend": {
        "labelColor": INK,
        "titleColor": MUTED,
        "titleFontWeight": "normal",
        "labelFontSize": 12,
        "titleFontSize": 11,
        "titlePadding": 14,
        "columnPadding": 16,
        "orient": "top",
        "labelLimit": 260,
    },
    "bar": {"cornerRadiusEnd": 3},
    "text": {"fontSize": 11},
}
"""The theme of all charts."""

PLAIN = ",.2~r"
"""The format of numbers of any size, with two digits and no exponent: 0.00003, 12, 5,600."""
_NUMBER: dict[Format, str] = {"percent": ".1%", "count": ",", "rate": PLAIN, "seconds": ",.1f"}
"""The formats of numbers in tooltips."""


def chart(
    title: str,
    about: str,
    rows: Sequence[Mapping[str, Any]],
    columns: Mapping[str, Column],
    spec: Mapping[str, Any],
    *,
    table: Table | None = None,
    wide: bool = False,
) -> Chart:
    """Returns a chart of some rows, with a table of its data.

    Args:
        title: The title.
        about: An explanation of the chart.
        rows: The data.
        columns: The column of the table for each field of a row.
        spec: The Vega-Lite specification, without the data.
        table: The table below the chart; a table of all rows by default.
        wide: Whether the chart takes the whole width of the page.
    """
    table = table or Table(
        title, list(columns.values()), [[row.get(field) for field in columns] for row in rows]
    )
    values = replace_nonfinite([{field: row.get(field) for field in row} for row in rows])
    full = {"width": "container", "height": HEIGHT, "data": {"values": values}, **spec}
    return Chart(title, about, full, table, wide)


def axis(field: str, title: str | None, form: Format = "number", **more: Any) -> dict[str, Any]:
    """Returns the Vega-Lite encoding of a numeric field, with a scale and other properties in `more`."""
    shown: dict[str, Any] = {}
    if form == "percent":
        shown = {"format": "%"}
    elif form == "count":
        shown = {"format": ",d", "tickMinStep": 1}
    elif form in ("operations", "bytes"):
        shown = {"format": ".2~s"}
    elif more.get("scale", {}).get("type") == "log":
        shown = {"format": PLAIN}
    return {"field": field, "type": "quantitative", "title": title, "axis": shown, **more}


def tooltips(columns: Mapping[str, Column]) -> list[dict[str, Any]]:
    """Returns the tooltip of a mark, with a line for each column."""
    return [
        {
            "field": field,
            "title": column.name,
            **(
                {"type": "quantitative", "format": _NUMBER.get(column.format, ",.4~r")}
                if column.numeric
                else {}
            ),
        }
        for field, column in columns.items()
    ]


def named(names: Sequence[str]) -> dict[str, Any]:
    """Returns the properties of an axis or a legend with names: long ones are abridged, and stay distinct.

    The data and the tooltips have the whole names.

    Args:
        names: All names.
    """
    shown = abridge(names, _NAME_WIDTH)
    if shown == [*names]:
        return {}
    expression = f"{json.dumps(shown)}[indexof({json.dumps([*names])}, datum.value)]"
    return {"labelExpr": expression, "labelLimit": 0}


def by_series(names: Sequence[str], field: str = "series") -> dict[str, Any]:
    """Returns the colours, shapes and dashes of series, with one legend for all."""
    scale = {"domain": list(names)}
    legend = {"title": None, **named(names)} if len(names) > 1 else None
    dashes = [
        {"test": f"datum.{field} === {json.dumps(name)}", "value": dash}
        for name, dash in zip(names[1:], _cycled(DASHES, names)[1:], strict=True)
    ]
    return {
        "color": {"field": field, "scale": {**scale, "range": _cycled(COLOURS, names)}, "legend": legend},
        "shape": {"field": field, "scale": {**scale, "range": _cycled(SHAPES, names)}, "legend": legend},
        "strokeDash": {"condition": dashes, "value": DASHES[0]},
    }


def _cycled(values: Sequence[Any], names: Sequence[str]) -> list[Any]:
    return [values[index % len(values)] for index in range(len(names))]
