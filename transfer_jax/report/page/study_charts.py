"""The charts of a study: metrics by level with every seed, and accuracy against cost."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from transfer_jax.report.page.chart_style import COLOURS, INK, MUTED, axis, by_series, chart, named, tooltips
from transfer_jax.report.page.elements import Chart, Column
from transfer_jax.report.page.formats import capitalized
from transfer_jax.report.page.study_files import StudyFiles, display_name

_ENDS = [
    {"calculate": f"isValid(datum.{end}) ? datum.{end} : datum.mean", "as": name}
    for end, name in (("low", "from"), ("high", "to"))
]
"""The ends of an interval; the mean if there is no interval."""

_MOST_LABELS = 14
"""The largest number of levels that all have a label at the axis, on a phone as well."""
_WIDTH, _HEIGHT, _LETTER, _LINE = 400, 240, 7, 15
"""Pixels: the width and height of a chart, the width of a letter, and the height of a line."""


def level_chart(files: StudyFiles, metric: str, title: str, about: str) -> Chart | None:
    """Returns a chart of the mean of a metric by level, with intervals and a point for each seed.

    Returns None if no trial has the metric.
    """
    means, points = files.means(metric), files.points(metric)
    if not means:
        return None
    form = files.column(metric).format
    names = list(dict.fromkeys(row["series"] for row in means))
    columns = {"level": Column(display_name(files.factor)), "n": Column("seeds", "count")}
    if names != [""]:
        columns = {"series": Column("where"), **columns}
    columns |= {"mean": Column("mean", form), "low": Column("low", form), "high": Column("high", form)}
    levels = list(files.labels.values())
    across = bool(files.study.get("ordered", True))
    place = {"field": "level", "type": "ordinal", "sort": levels, "title": display_name(files.factor)}
    place |= {"scale": {"domain": levels}}
    style: dict[str, Any] = {"labelLimit": 150}
    if across:
        style = {"labelAngle": -40, "labelOverlap": len(levels) > _MOST_LABELS}
    place |= {"axis": {**style, **named(levels)}}
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
    about = f"{about} Mean{' with 95% interval' if known else ''}; each small point is a seed."
    spec: dict[str, Any] = {"layer": layer, "height": 260 if across else 26 * len(levels)}
    return chart(title, about, means, columns, spec)


def pareto_chart(files: StudyFiles, cost: str) -> Chart | None:
    """Returns a chart of the mean of the most important score against its cost.

    A step line follows the Pareto front. Returns None if no trial has both.
    """
    score = files.task.metrics[0]
    metric = score.name
    costs = {(row["series"], row["level"]): row["mean"] for row in files.means(cost)}
    rows = [
        {**row, "cost": costs[row["series"], row["level"]]}
        for row in files.means(metric)
        if costs.get((row["series"], row["level"]), 0) > 0
    ]
    if not rows:
        return None
    front = pareto_front(rows, lower_is_better=score.lower_is_better)
    form = files.column(metric).format
    columns = {"level": Column(display_name(files.factor)), "cost": files.column(cost)}
    columns |= {"mean": files.column(metric), "low": Column("low", form), "high": Column("high", form)}
    if files.others:
        columns = {"series": Column("where"), **columns}
    columns["front"] = Column("on the Pareto front")
    middle = math.sqrt(min(row["cost"] for row in rows) * max(row["cost"] for row in rows))
    named = front_names(front, rows, middle)
    rows = [{**row, "front": row in front, "named": row in named} for row in rows]
    scale = {"type": "log", "nice": False, "padding": 20}
    x = axis("cost", f"{display_name(cost)} (log scale)", files.column(cost).format, scale=scale)
    x["axis"] |= {"tickCount": 5}
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
            *_name_marks(place, middle, [row["cost"] for row in named]),
        ],
    }
    title = f"{capitalized(display_name(metric))} against {display_name(cost)}"
    about = "Mean of each level. No cheaper level is as good as those on the dashed line."
    return chart(title, about, rows, columns, spec)


def _name_marks(place: Mapping[str, Any], middle: float, costs: Sequence[float]) -> list[dict[str, Any]]:
    """Returns the names of levels, on the side of each point that faces the middle of the costs."""
    mark = {"type": "text", "baseline": "bottom", "dy": -4, "color": INK, "limit": _WIDTH / 2}
    marks = [
        {
            "transform": [{"filter": f"datum.named && datum.cost {side} {middle}"}],
            "mark": {**mark, "align": align, "dx": shift},
            "encoding": {**place, "text": {"field": "level"}},
        }
        for side, align, shift in (("<=", "left", 6), (">", "right", -6))
    ]
    sides = any(cost <= middle for cost in costs), any(cost > middle for cost in costs)
    return [each for each, used in zip(marks, sides, strict=True) if used]


def front_names(
    front: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]], middle: float
) -> list[Mapping[str, Any]]:
    """Returns the rows of the front whose names fit without overlap: the ends, then the others."""
    costs = [math.log(row["cost"]) for row in rows]
    ends = [value for row in rows for value in (row["low"], row["mean"], row["high"]) if value is not None]
    across = _WIDTH / max(max(costs) - min(costs), 1e-9)
    up = _HEIGHT / max(max(ends) - min(ends), 1e-9)
    taken: list[tuple[float, float, float]] = []
    named = []
    for row in [*front[:1], *front[:0:-1]]:
        x, y, width = across * math.log(row["cost"]), up * row["mean"], _LETTER * len(str(row["level"]))
        left = x if row["cost"] <= middle else x - width
        if all(abs(y - v) > _LINE or left > end or left + width < start for start, end, v in taken):
            taken.append((left, left + width, y))
            named.append(row)
    return named


def pareto_front(
    rows: Sequence[Mapping[str, Any]], *, lower_is_better: bool = False
) -> list[Mapping[str, Any]]:
    """Returns the rows that no other row equals or beats in both `cost` and `mean`, cheapest first."""
    sign = -1 if lower_is_better else 1
    front: list[Mapping[str, Any]] = []
    for row in sorted(rows, key=lambda row: (row["cost"], -sign * row["mean"])):
        if not front or sign * row["mean"] > sign * front[-1]["mean"]:
            front.append(row)
    return front
