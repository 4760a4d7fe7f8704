"""The report of one run."""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transfer_jax.counted import counted
from transfer_jax.report.page.charts import bars
from transfer_jax.report.page.class_section import class_section
from transfer_jax.report.page.diagnostics_sections import (
    block_section,
    calibration_section,
    group_section,
    saliency_section,
)
from transfer_jax.report.page.elements import (
    Charts,
    Column,
    Image,
    Images,
    Page,
    Section,
    Table,
    Text,
    Tile,
    Tiles,
)
from transfer_jax.report.page.final_test import scores_of_test_images
from transfer_jax.report.page.formats import percent, seconds
from transfer_jax.report.page.html import write_page
from transfer_jax.report.page.inline_images import inline_images
from transfer_jax.report.page.reproduce_section import reproduce_section
from transfer_jax.report.page.run_files import RunFiles
from transfer_jax.report.page.run_summary import run_summary
from transfer_jax.report.page.schedule_section import schedule_parts
from transfer_jax.report.page.training_curves import curve_charts
from transfer_jax.storage import workdir_files
from transfer_jax.tasks import Regression, task_class

_ACTIVITIES = {
    "step": "training steps",
    "start_up": "start-up",
    "compile": "compilation",
    "extract": "feature extraction",
    "wait": "waiting for images",
    "evaluate": "evaluation",
    "checkpoint": "checkpoints",
    "lost": "repeated steps",
    "other": "other activities",
}
"""The activities of a run as a chart shows them, by their names in `goodput.json`."""


def write_run_report(workdir: Path, path: Path | None = None) -> Path:
    """Writes the report of a run, finished or not, from the files of its workdir.

    Args:
        workdir: The workdir of the run.
        path: The HTML file; `report.html` in the workdir by default.

    Returns:
        The path of the file.

    Raises:
        FileNotFoundError: If the folder is not a workdir.
        ValueError: If a file in it is damaged.
    """
    return write_page(run_page(RunFiles.from_workdir(workdir)), path or workdir / workdir_files.REPORT)


def run_page(run: RunFiles) -> Page:
    """Returns the report of a run, with a section for each kind of files that the run has."""
    config = run.config
    state = "finished" if run.finished else "not finished"
    sections = [
        Section("Summary", [Text(run_summary(run), lead=True), *_tiles(run)]),
        _schedule(run),
        _curves(run),
        scores_of_test_images(run),
        _classes(run),
        _misclassified(run),
        calibration_section(run),
        group_section(run),
        block_section(run),
        saliency_section(run),
        _time(run),
        _frozen(run),
        reproduce_section(run),
    ]
    subtitle = f"{config['model']} on {config['images']}, seed {config['seed']}, {state}"
    return Page(run.name, subtitle, [section for section in sections if section and section.parts])


def _tiles(run: RunFiles) -> list[Tiles]:
    scores = run.scores
    if not scores:
        return []
    metrics = task_class(scores).metrics
    tiles = [
        Tile(metric.title, metric.text(metric.of(scores)), metric.note)
        for metric in metrics
        if metric.of(scores) is not None
    ]
    tiles[0] = dataclasses.replace(tiles[0], note=f"on {counted(scores['images'], 'validation image')}")
    calibration = run.json(workdir_files.DIAGNOSTICS).get("calibration")
    if calibration:
        tiles.append(Tile("calibration error", percent(calibration["ece"]), "ECE; lower is better"))
    train = run.json(workdir_files.DIAGNOSTICS).get("train") or run.training_scores
    if train and "accuracy" in scores:
        gap = train["accuracy"] - scores["accuracy"]
        note = f"training accuracy {percent(train['accuracy'])} minus validation accuracy"
        tiles.append(Tile("overfit gap", f"{100 * gap:+.1f} points", note))
    return [Tiles(tiles)]


def _schedule(run: RunFiles) -> Section:
    return Section("Schedule", schedule_parts(run))


def _curves(run: RunFiles) -> Section:
    charts = curve_charts(run)
    return Section("Curves", [Charts(charts)] if charts else [])


def _classes(run: RunFiles) -> Section | None:
    if "per_quantity" in run.scores:
        return Section("Quantities", [_quantities(run.scores["per_quantity"])])
    found = run.class_scores()
    return None if found is None else class_section(found)


def _quantities(quantities: Mapping[str, Mapping[str, Any]]) -> Table:
    """Returns a table of the errors of each quantity with their 95 % intervals."""
    names = {"mae": "MAE", "rmse": "RMSE", "r2": "R²"}
    columns = [Column("quantity")]
    for title in names.values():
        columns += [Column(title, "number"), Column(f"95% interval of {title}")]
    rows = []
    for quantity, scores in quantities.items():
        rows.append([quantity])
        for name in names:
            interval = scores[f"{name}_interval"]
            shown = "-" if interval is None else f"{interval[0]:.4g} to {interval[1]:.4g}"
            rows[-1] += ["-" if scores[name] is None else scores[name], shown]
    return Table("Errors by quantity, on validation images", columns, rows)


def _misclassified(run: RunFiles) -> Section | None:
    found: list[dict[str, Any]] = run.json(
        f"{workdir_files.MISCLASSIFIED}/{workdir_files.MISCLASSIFIED_LIST}"
    ).get("mistakes", [])
    if not found:
        return None
    if task_class(run.scores) is Regression:
        found = [{**each, **{key: _short(each[key]) for key in ("label", "predicted")}} for each in found]
    images = [
        Image(
            source,
            f"Validation image {each['name']}: true {each['label']}, predicted {each['predicted']}",
            (f"{each['label'] or 'no label'}, predicted as {each['predicted'] or 'no label'}", _note(each)),
        )
        for each, source in inline_images(run.workdir / workdir_files.MISCLASSIFIED, found)
    ]
    classes = run.class_scores()
    if classes is None or classes.confusions is None:
        text = "The validation images whose predictions are furthest from their labels, largest error first."
        return Section("Largest errors", [Text([text]), Images(images)])
    wrong = int(classes.confusions.images.sum() - classes.confusions.right.sum())
    shown = "The images below have the lowest probability of the true class, lowest first."
    text = f"{counted(wrong, 'validation image')} {'is' if wrong == 1 else 'are'} misclassified. {shown}"
    return Section("Misclassified images", [Text([text]), Images(images)])


def _short(numbers: str) -> str:
    """Returns a text whose decimal numbers have four digits."""
    return re.sub(r"\d+\.\d+(e-?\d+)?", lambda found: f"{float(found[0]):.4g}", numbers)


def _note(record: Mapping[str, Any]) -> str:
    """Returns the size of an error: the probability of the predicted class, or the note of the task."""
    return record.get("note") or f"with probability {percent(record['probability'])}"


def _time(run: RunFiles) -> Section | None:
    goodput = run.json(workdir_files.GOODPUT)
    if not goodput:
        return None
    spent: dict[str, float] = {
        _ACTIVITIES.get(part, str(part)): value for part, value in goodput["seconds"].items() if value > 0
    }
    total = sum(spent.values()) or 1.0
    names: list[str] = sorted(spent, key=lambda part: -spent[part])
    rows = [
        {"name": part, "value": spent[part], "shown": f"{seconds(spent[part])} · {spent[part] / total:.0%}"}
        for part in names
    ]
    chart = bars(
        "Time by activity",
        "Wall time of all sessions of the run, by activity.",
        rows,
        names=names,
        name=Column("activity"),
        value=Column("seconds", "seconds"),
        shown="shown",
    )
    verdict = goodput["verdict"]
    parts: list[Any] = [Text([f"{verdict[:1].upper()}{verdict[1:]}."]), Charts([chart])]
    if run.phases:
        parts.append(_phase_times(run))
    return Section("Time", parts)


def _phase_times(run: RunFiles) -> Table:
    columns = [Column("phase"), Column("cached features at"), Column("extracted rows", "count")]
    columns += [Column(name, "seconds") for name in ("extraction", "compilation", "training")]
    columns += [Column("images per second", "count"), Column("operations per step", "operations")]
    columns += [Column("optimizer state", "bytes")]
    names = ("extracted", "extract_seconds", "compile_seconds", "train_seconds", "images_per_second")
    rows = [
        [
            phase["name"],
            phase["boundary"] or "none: trains on images",
            *(phase[name] for name in (*names, "step_flops", "optimizer_bytes")),
        ]
        for phase in run.phases
    ]
    return Table("Time and cost by phase", columns, rows, sortable=False)


def _frozen(run: RunFiles) -> Section | None:
    if not run.freeze_records:
        return None
    columns = [
        Column("phase"),
        Column("steps"),
        Column("trained blocks"),
        Column("trained parameters", "count"),
        Column("frozen arrays", "count"),
        Column("SHA-256 before", "code"),
        Column("SHA-256 after", "code"),
        Column("unchanged"),
    ]
    rows = []
    for each in run.freeze_records:
        for span in each["spans"]:
            before, after = span["frozen"]["sha256_before"], span["frozen"]["sha256_after"]
            first, last = span["steps"]
            rows.append([each["phase"], f"{first} to {last}", ", ".join(span["trained"]["blocks"])])
            rows[-1] += [span["trained"]["parameters"], span["frozen"]["arrays"]]
            rows[-1] += [before[:16], after[:16], before == after]
    hashes = "the same SHA-256 hash before and after training"
    text = (
        f"All frozen parameters and statistics have {hashes}."
        if run.frozen_unchanged
        else f"NOT all frozen parameters and statistics have {hashes}; see the table."
    )
    text = f"{text} The hashes are in {workdir_files.FREEZE_RECORDS}/."
    table = Table("Hashes of the frozen parameters and statistics", columns, rows, sortable=False)
    return Section("Freeze checks", [Text([text]), table])
