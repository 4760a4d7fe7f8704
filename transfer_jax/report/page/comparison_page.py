"""The report of several runs side by side."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from transfer_jax.report.page.charts import span_of
from transfer_jax.report.page.curves import timeline_chart
from transfer_jax.report.page.elements import Charts, Column, Link, Page, Part, Section, Table, Text
from transfer_jax.report.page.formats import count, listed, percent
from transfer_jax.report.page.html import write_page
from transfer_jax.report.page.overlaid_charts import overlaid, scattered
from transfer_jax.report.page.run_files import Record
from transfer_jax.storage import workdir_files

_SHARED = ("images", "eval_fraction", "seed", "on_bad_image")
"""What decides which images are held out."""
_MOST_SCHEDULES = 8
_SCORES = ("accuracy", "balanced_accuracy", "macro_f1", "roc_auc", "log_loss")


def write_comparison(workdirs: Sequence[Path], path: Path) -> Path:
    """Writes a report of runs side by side, from the files of their workdirs.

    Args:
        workdirs: The runs' folders, at least two.
        path: The file.

    Raises:
        FileNotFoundError: If a folder is not one of a run.
        ValueError: If a file is damaged, or a folder is given twice.
    """
    if len({folder.resolve() for folder in workdirs}) < len(workdirs):
        raise ValueError("a run is given twice")
    records = [Record.of(*each) for each in zip(workdirs, distinct_names(workdirs), strict=True)]
    return write_page(comparison_page(records, path.parent), path)


def distinct_names(folders: Sequence[Path]) -> list[str]:
    """The shortest ends of paths that tell folders apart."""
    parts = [folder.absolute().parts for folder in folders]
    for length in range(1, max(map(len, parts)) + 1):
        names = [Path(*each[-length:]).as_posix() for each in parts]
        if len(set(names)) == len(names):
            return names
    raise ValueError("a run is given twice")


def comparison_page(records: Sequence[Record], folder: Path) -> Page:
    """The report of several runs, to be written into a folder."""
    done = sum(record.finished for record in records)
    sections = [
        Section("Scores", [Text(_sentences(records), lead=True), _scores(records, folder)]),
        Section("Curves", [Charts(overlaid(records))]),
        Section("Accuracy and time", [Charts(scattered(records))]),
        Section("Schedules", _schedules(records)),
        Section("What differs", [_differences(records)]),
    ]
    subtitle = f"{done} of {len(records)} runs are finished"
    kept = [
        each for each in sections if any(not isinstance(part, Charts) or part.charts for part in each.parts)
    ]
    return Page(f"{len(records)} runs side by side", subtitle, kept)


def _sentences(records: Sequence[Record]) -> list[str]:
    scored = [record for record in records if record.scores]
    if not scored:
        return ["No held-out image has been scored yet."]
    best = max(scored, key=lambda record: record.scores["accuracy"])
    worst = min(scored, key=lambda record: record.scores["accuracy"])
    said = [
        f"The most accurate of {count(len(scored))} is {best.name}, with {percent(best.scores['accuracy'])} "
        f"of {count(best.scores['images'])} held-out images; the least is {worst.name}, with "
        f"{percent(worst.scores['accuracy'])}."
    ]
    differ = [name for name in _SHARED if len({str(record.config[name]) for record in records}) > 1]
    if differ:
        return [*said, f"They were not scored on the same images: {listed(differ)} differs between them."]
    return [*said, "All were scored on the same images, those that one split held out."]


def _scores(records: Sequence[Record], folder: Path) -> Table:
    columns = [Column("run"), Column("network"), Column("finished"), Column("epochs", "count")]
    columns += [Column(name, "percent") for name in ("accuracy", "balanced accuracy", "macro F1")]
    columns += [Column("ROC AUC", "number"), Column("log loss", "number")]
    columns += [Column("trainable parameters", "count"), Column("time", "seconds")]
    columns += [Column("of it in steps", "percent")]
    rows: list[list[Any]] = []
    for record in records:
        goodput = record.json(workdir_files.GOODPUT)
        rows.append([_linked(record, folder), record.config["model"], record.finished, len(record.epochs)])
        rows[-1] += [record.scores.get(name) for name in _SCORES]
        rows[-1] += [record.trained_parameters, sum(goodput["seconds"].values()) if goodput else None]
        rows[-1] += [goodput.get("share")]
    return Table("Runs with their scores on held-out images", columns, rows)


def _linked(record: Record, folder: Path) -> Link | str:
    report = record.workdir / workdir_files.REPORT
    if not report.is_file():
        return record.name
    return Link(record.name, Path(os.path.relpath(report, folder)).as_posix())


def _schedules(records: Sequence[Record]) -> list[Part]:
    """Each schedule that was carried out, once, with the runs that have it."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(_written(record), []).append(record)
    columns = [Column("schedule", "code"), Column("runs", "count"), Column("which")]
    rows = [
        [schedule, len(each), ", ".join(record.name for record in each[:5]) + (" …" if len(each) > 5 else "")]
        for schedule, each in groups.items()
    ]
    parts: list[Part] = [Table("Schedules", columns, rows)]
    shown = [each[0] for each in groups.values() if each[0].epochs][:_MOST_SCHEDULES]
    timelines = {record: record.executed() for record in shown}
    rates = [value for each in timelines.values() for value in each.rates().ravel() if value > 0]
    limits = span_of(rates, log=True)
    charts = [
        timeline_chart(f"Schedule of {record.name}", each, limits, record.spans())
        for record, each in timelines.items()
    ]
    return [*parts, Charts(charts)] if charts else parts


def _written(record: Record) -> str:
    return " -> ".join(f"{each['name']}: {each['train']} x {each['epochs']}" for each in record.schedule)


def _differences(records: Sequence[Record]) -> Table | Text:
    """The fields of the configs that are not the same in all runs."""
    configs = [dict(flattened(record.config)) for record in records]
    names = sorted({name for config in configs for name in config})
    differ = [name for name in names if len({repr(config.get(name)) for config in configs}) > 1]
    if not differ:
        return Text(["The configs of all runs are the same."])
    rows = [
        [record.name, *(_value(config.get(name)) for name in differ)]
        for record, config in zip(records, configs, strict=True)
    ]
    columns = [
        Column("run"),
        *(Column(name.replace("schedule.phases.", "phase "), "code") for name in differ),
    ]
    return Table("Fields of the config that differ", columns, rows)


def _value(value: Any) -> str:
    return "" if value is None else str(value)


def flattened(values: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The values of nested dictionaries and lists, by dotted names."""
    items = values.items() if isinstance(values, Mapping) else enumerate(values)
    for name, value in items:
        if isinstance(value, Mapping | list) and value:
            yield from flattened(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
