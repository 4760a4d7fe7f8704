"""The charts of a study: figures by level with every seed, and accuracy against cost."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from transfer_jax.report.page.chart_style import COLOURS, INK, MUTED, axis, by_series, chart, tooltips
from transfer_jax.report.page.elements import Chart, Column
from transfer_jax.report.page.study_files import StudyFiles, column, display_name

_ENDS = [
    {"calculate": f"isValid(datum.{end}) ? datum.{end} : datum.mean", "as": name}
    for end, name in (("low", "from"), ("high", "to"))
]
"""The ends of an interval; the mean itself where there is none."""

_ACROSS, _UP, _LETTER, _LINE = 400, 240, 7, 15
"""Pixels: of a chart of usual width, a letter, and a line."""


def level_chart(files: StudyFiles, metric: str, title: str, about: str) -> Chart | None:
    """A figure by level: the mean with its interval, and every seed as a point; None if nobody has it."""
    means, points = files.means(metric), files.points(metric)
    if not means:
        return None
    form = column(metric).format
    names = list(dict.fromkeys(row["series"] for row in means))
    columns = {"level": Column(display_name(files.factor)), "n": Column("seeds", "count")}
    if names != [""]:
        columns = {"series": Column("where"), **columns}
    columns |= {"mean": Column("mean", form), "low": Column("low", form), "high": Column("high", form)}
    levels = list(files.labels.values())
    across = bool(files.study.get("ordered", True))
    place = {"field": "level", "type": "ordinal", "sort": levels, "title": display_name(files.factor)}
    place |= {"scale": {"domain": levels}}
    place |= {"axis": {"labelAngle": -40, "labelOverlap": True} if across else {"labelLimit": 150}}
    size = axis("mean", display_name(metric), form, scale={"zero": False})
    level, value = ("x", "y") if across else ("y", "x")
    marks = by_series(names)
    colour = marks["color"] if len(names) > 1 else {"value": COLOURS[0]}
    shape = {"shape": marks["shape"]} if len(names) > 1 else {}
    seeds = tooltips(
        {**{k: v for k, v in columns.items() if k in ("series", "level")}, "seed": Column("seed")}
    )
    seeds += tooltips({"value": Column(display_name(metric), form)})
    layer: list[dict[str, Any]] = [
        {
            "data": {"values": points},
            "mark": {"type": "point", "filled": True, "size": 18, "opacity": 0.55, f"{level}Offset": -6},
            "encoding": {
                level: place,
                value: {**size, "field": "value"},
                "color": {**colour, "legend": None} if len(names) > 1 else {"value": MUTED},
                "tooltip": seeds,
            },
        },
        {
            "transform": _ENDS,
            "mark": {"type": "rule", "strokeWidth": 2},
            "encoding": {
                level: place,
                value: {**size, "field": "from"},
                f"{value}2": {"field": "to"},
                "color": colour,
            },
        },
        {
            "mark": {"type": "point", "filled": True, "size": 60, "opacity": 1},
            "encoding": {level: place, value: size, "color": colour, **shape, "tooltip": tooltips(columns)},
        },
    ]
    if across:
        layer.insert(2, {"mark": "line", "encoding": {level: place, value: size, "color": colour}})
    known = any(row["low"] is not None for row in means)
    about = f"{about} Mean{' with its 95% interval' if known else ''}; small points are seeds."
    spec: dict[str, Any] = {"layer": layer, "height": 260 if across else 26 * len(levels)}
    return chart(title, about, means, columns, spec)


def pareto_chart(files: StudyFiles, cost: str, metric: str = "accuracy") -> Chart | None:
    """The mean of a figure against what its level costs; a step line joins those that none beats in both."""
    costs = {(row["series"], row["level"]): row["mean"] for row in files.means(cost)}
    rows = [
        {**row, "cost": costs[row["series"], row["level"]]}
        for row in files.means(metric)
        if costs.get((row["series"], row["level"]), 0) > 0
    ]
    if not rows:
        return None
    front = pareto_front(rows)
    form = column(metric).format
    columns = {"level": Column(display_name(files.factor)), "cost": column(cost)}
    columns |= {"mean": column(metric), "low": Column("low", form), "high": Column("high", form)}
    if files.others:
        columns = {"series": Column("where"), **columns}
    columns["front"] = Column("on the front")
    middle = math.sqrt(min(row["cost"] for row in rows) * max(row["cost"] for row in rows))
    named = front_names(front, rows, middle)
    rows = [{**row, "front": row in front, "named": row in named} for row in rows]
    x = axis(
        "cost", f"{display_name(cost)}, logarithmic", scale={"type": "log", "nice": False, "padding": 20}
    )
    x["axis"] = {"format": ".2~s", "tickCount": 5}
    y = axis("mean", display_name(metric), form, scale={"zero": False})
    best = {"condition": {"test": "datum.front", "value": COLOURS[1]}, "value": MUTED}
    place = {"x": x, "y": y}
    on_front = [{"filter": "datum.front"}]
    spec = {
        "height": 300,
        "layer": [
            {
                "transform": on_front,
                "mark": {
                    "type": "line",
                    "interpolate": "step-after",
                    "color": COLOURS[1],
                    "strokeDash": [4, 3],
                },
                "encoding": place,
            },
            {
                "transform": _ENDS,
                "mark": {"type": "rule", "opacity": 0.6},
                "encoding": {"x": x, "y": {**y, "field": "from"}, "y2": {"field": "to"}, "color": best},
            },
            {
                "mark": {"type": "point", "filled": True, "size": 70, "opacity": 1},
                "encoding": {**place, "color": best, "tooltip": tooltips(columns)},
            },
            *_names(place, middle),
        ],
    }
    title = f"{display_name(metric).capitalize()} against {display_name(cost)}"
    about = "Means of the levels. Nothing that is cheaper is as good as those on the dashed line."
    return chart(title, about, rows, columns, spec)


def _names(place: Mapping[str, Any], middle: float) -> list[dict[str, Any]]:
    """The names of levels, written towards the middle of the costs."""
    mark = {"type": "text", "baseline": "bottom", "dy": -4, "color": INK}
    return [
        {
            "transform": [{"filter": f"datum.named && datum.cost {side} {middle}"}],
            "mark": {**mark, "align": align, "dx": shift},
            "encoding": {**place, "text": {"field": "level"}},
        }
        for side, align, shift in (("<=", "left", 6), (">", "right", -6))
    ]


def front_names(
    front: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]], middle: float
) -> list[Mapping[str, Any]]:
    """Rows of the front whose names do not lie on each other: the ends, and others where there is room."""
    costs = [math.log(row["cost"]) for row in rows]
    ends = [value for row in rows for value in (row["low"], row["mean"], row["high"]) if value is not None]
    across = _ACROSS / max(max(costs) - min(costs), 1e-9)
    up = _UP / max(max(ends) - min(ends), 1e-9)
    taken: list[tuple[float, float, float]] = []
    named = []
    for row in [*front[:1], *front[:0:-1]]:
        x, y, width = across * math.log(row["cost"]), up * row["mean"], _LETTER * len(str(row["level"]))
        left = x if row["cost"] <= middle else x - width
        if all(abs(y - v) > _LINE or left > end or left + width < start for start, end, v in taken):
            taken.append((left, left + width, y))
            named.append(row)
    return named


def pareto_front(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The rows of which no other has a `cost` as low with a `mean` as high, cheapest first."""
    front: list[Mapping[str, Any]] = []
    for row in sorted(rows, key=lambda row: (row["cost"], -row["mean"])):
        if not front or row["mean"] > front[-1]["mean"]:
            front.append(row)
    return front
