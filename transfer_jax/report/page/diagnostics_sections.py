"""The sections with diagnostics of a run: statistics by block, calibration, groups and saliency maps."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from transfer_jax.report.page.chart_style import COLOURS, MUTED, axis, chart, tooltips
from transfer_jax.report.page.charts import MAX_COLUMNS, bars, curves, heat_map
from transfer_jax.report.page.elements import (
    Chart,
    Charts,
    Column,
    Format,
    Image,
    Images,
    Part,
    Section,
    Table,
    Text,
    replace_nonfinite,
)
from transfer_jax.report.page.formats import number, percent
from transfer_jax.report.page.inline_images import inline_images
from transfer_jax.report.page.run_files import RunFiles
from transfer_jax.storage import workdir_files

_STATISTICS = {
    "rgn": ("Relative gradient norm", "Gradient norm divided by parameter norm.", True),
    "snr": (
        "Gradient signal to noise",
        "Squared mean divided by variance of the gradient, over outputs.",
        True,
    ),
    "grad_norm": ("Gradient norm", "Norm of the gradient of all parameters of a block.", True),
    "update": ("Relative update", "Norm of the next update divided by parameter norm.", True),
    "distance": ("Distance from the pretrained weights", "Norm of the change divided by weight norm.", True),
    "cka": (
        "Similarity to the pretrained features",
        "Linear CKA on a fixed batch; 1 is identical.",
        False,
    ),
}
"""For each statistic its title, an explanation, and whether its colours are logarithmic."""


def block_section(run: RunFiles) -> Section | None:
    """Returns the section with statistics by block, over the steps and at the end of the run."""
    found = run.json(workdir_files.DIAGNOSTICS)
    charts = [
        _over_time(name, run.block_statistics[name], run)
        for name in _STATISTICS
        if name in run.block_statistics
    ]
    for name, title, form in (
        ("cka", "Similarity to the pretrained features at the end", "number"),
        ("distance", "Distance from the pretrained weights at the end", "number"),
    ):
        if found.get(name):
            charts.append(_at_the_end(title, _STATISTICS[name][1], replace_nonfinite(found[name]), form, run))
    charts += _interpolation(found.get("interpolation", []))
    parts: list[Part] = [Charts(charts)] if charts else []
    omitted = found.get("omitted", {}).items()
    notes = [f"The diagnostics do not include {part}: {reason}." for part, reason in omitted]
    return Section("Block statistics", [*parts, Text(notes)] if notes else parts)


def _over_time(name: str, lines: Sequence[Mapping[str, Any]], run: RunFiles) -> Chart:
    title, about, log = _STATISTICS[name]
    groups = np.array_split(np.arange(len(lines)), min(len(lines), MAX_COLUMNS))
    rows, before = [], 0
    starts = [span["first"] for span in run.phase_spans(by="step")]
    blocks = [block for block in run.blocks if any(block in line["blocks"] for line in lines)]
    for group in groups:
        first, last = (lines[int(index)]["step"] for index in (group[0], group[-1]))
        before = max([before, *(start for start in starts if start < first)])
        for block in blocks:
            values = [replace_nonfinite(lines[int(index)]["blocks"].get(block)) for index in group]
            values = [value for value in values if value is not None]
            if values:
                value = float(f"{np.mean(values):.4g}")
                rows.append({"block": block, "first": before, "last": last, "value": value})
        before = last
    table = _ends(title, lines, blocks)
    return heat_map(
        title,
        f"{about} Grey means not trained or unknown.",
        rows,
        blocks=blocks,
        x="step",
        value=Column(title.lower(), "number"),
        spans=run.phase_spans(by="step"),
        log=log,
        table=table,
    )


def _ends(title: str, lines: Sequence[Mapping[str, Any]], blocks: Sequence[str]) -> Table:
    rows: list[Any] = []
    for block in reversed(blocks):
        values = [replace_nonfinite(line["blocks"].get(block)) for line in lines]
        values = [value for value in values if value is not None]
        if values:
            rows.append([block, values[0], values[-1], max(values)])
    columns = [Column("block"), *(Column(name, "number") for name in ("first", "last", "highest"))]
    return Table(title, columns, rows)


def _at_the_end(title: str, about: str, values: Mapping[str, float], form: Any, run: RunFiles) -> Chart:
    known = {name: value for name, value in values.items() if value is not None}
    names = [block for block in run.blocks if block in known]
    names = [*reversed([*names, *(name for name in known if name not in names)])]
    rows = [{"name": name, "value": known[name], "shown": number(known[name])} for name in names]
    columns = {"name": Column("block"), "value": Column(title.removesuffix(" at the end").lower(), form)}
    return bars(title, about, rows, names=names, **columns, shown="shown")


def _interpolation(points: Sequence[Mapping[str, Any]]) -> list[Chart]:
    """Returns charts of the scores of weights interpolated between the start and the end of the run."""
    about = "Weights interpolated linearly from the pretrained (0) to the trained ones (1)."
    charts = []
    shown: tuple[tuple[str, dict[str, str], Format], ...] = (
        (
            "Accuracy between start and end",
            {"accuracy": "validation", "train_accuracy": "training"},
            "percent",
        ),
        ("Loss between start and end", {"log_loss": "validation", "train_loss": "training"}, "number"),
    )
    for title, names, form in shown:
        rows = [
            {"series": series, "x": point["alpha"], "y": point[name]}
            for name, series in names.items()
            for point in points
            if point.get(name) is not None
        ]
        if rows:
            series = [name for name in names.values() if any(row["series"] == name for row in rows)]
            x, y = Column("interpolation weight", "number"), Column(title.split()[0].lower(), form)
            charts.append(curves(title, about, rows, x=x, y=y, names=series))
    return charts


def calibration_section(run: RunFiles) -> Section | None:
    """Returns the section with the reliability curve; None without diagnostics."""
    found = run.json(workdir_files.DIAGNOSTICS).get("calibration")
    if not found:
        return None
    rows = [row for row in replace_nonfinite(found["bins"]) if row["images"]]
    columns = {
        "confidence": Column("mean confidence", "percent"),
        "accuracy": Column("accuracy", "percent"),
        "images": Column("images", "count"),
    }
    line = {"values": [{"confidence": 0, "accuracy": 0}, {"confidence": 1, "accuracy": 1}]}
    whole = {"scale": {"domain": [0, 1]}}
    mark = {"type": "point", "filled": True, "opacity": 1, "color": COLOURS[0]}
    size = {"field": "images", "type": "quantitative", "scale": {"range": [25, 400]}}
    spec = {
        "encoding": {
            "x": axis("confidence", "confidence", "percent", **whole),
            "y": axis("accuracy", "accuracy", "percent", **whole),
        },
        "layer": [
            {"data": line, "mark": {"type": "line", "color": MUTED, "strokeDash": [3, 3]}},
            {"mark": {"type": "line", "color": COLOURS[0]}},
            {"mark": mark, "encoding": {"size": size, "tooltip": tooltips(columns)}},
        ],
        "height": 300,
    }
    about = "Accuracy of the predictions with a given confidence. On the dashed line both are equal."
    reliability = chart("Reliability", about, rows, columns, spec)
    text = (
        f"The expected calibration error is {percent(found['ece'])}: the mean distance between confidence "
        "and accuracy of the predictions on the validation images."
    )
    if "temperature" in found:
        text += (
            f" With the temperature {found['temperature']:.3g}, which these images chose, it is "
            f"{percent(found['scaled_ece'])}; `--calibrated` predicts with it."
        )
    return Section("Calibration", [Text([text]), Charts([reliability])])


def group_section(run: RunFiles) -> Section | None:
    """Returns the section with scores by group of the validation images; None without groups."""
    groups = run.json(workdir_files.DIAGNOSTICS).get("groups")
    if not groups:
        return None
    columns = [Column("group"), Column("images", "count"), Column("accuracy", "percent")]
    columns.append(Column("balanced accuracy", "percent"))
    rows = [
        [name, *(row.get(key) for key in ("images", "accuracy", "balanced_accuracy"))]
        for name, row in groups.items()
    ]
    return Section("Groups", [Table("Scores by group of the validation images", columns, rows)])


def saliency_section(run: RunFiles) -> Section | None:
    """Returns the section with saliency maps; None without them."""
    maps = run.json(workdir_files.DIAGNOSTICS).get("maps")
    if not maps:
        return None
    images = [
        Image(
            source,
            f"Saliency map of {each['name']}: true class {each['label']}, predicted {each['predicted']}",
            (
                each["predicted"]
                if each["predicted"] == each["label"]
                else f"{each['label']}, predicted as {each['predicted']}",
                f"with probability {percent(each['confidence'])}",
            ),
        )
        for each, source in inline_images(run.workdir / workdir_files.SALIENCY_MAPS, maps)
    ]
    methods = ", ".join(sorted({each["method"] for each in maps if "method" in each}))
    text = "Bright regions of these validation images contribute most to the predicted class"
    text = f"{text} ({methods})." if methods else f"{text}."
    return Section("Saliency maps", [Text([text]), Images(images, wide=True)] if images else [])
