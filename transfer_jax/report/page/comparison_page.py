"""The report that compares several runs."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from transfer_jax.counted import counted
from transfer_jax.fields import is_stored_object, shown_object
from transfer_jax.report.page.charts import color_limits
from transfer_jax.report.page.comparison_charts import common_task, overlaid_curves, score_time_charts
from transfer_jax.report.page.elements import Charts, Column, Link, Page, Part, Section, Table, Text
from transfer_jax.report.page.formats import join_names
from transfer_jax.report.page.html import write_page
from transfer_jax.report.page.run_files import RunFiles
from transfer_jax.report.page.schedule_section import timeline_chart
from transfer_jax.storage import workdir_files

_SHARED = ("images", "val_fraction", "test_fraction", "seed", "on_bad_image")
"""The config fields that determine which images are in the validation set."""
_MAX_SCHEDULES = 8


def write_comparison(workdirs: Sequence[Path], path: Path) -> Path:
    """Writes a report that compares runs, from the files of their workdirs.

    Args:
        workdirs: The workdirs of at least two runs.
        path: The HTML file.

    Returns:
        The path of the file.

    Raises:
        FileNotFoundError: If a folder is not a workdir.
        ValueError: If a file is damaged, or a workdir is given twice.
    """
    if len({folder.resolve() for folder in workdirs}) < len(workdirs):
        raise ValueError("a run is given twice; name each workdir once")
    runs = [RunFiles.from_workdir(*each) for each in zip(workdirs, distinct_names(workdirs), strict=True)]
    return write_page(comparison_page(runs, path.parent), path)


def distinct_names(folders: Sequence[Path]) -> list[str]:
    """Returns the shortest path suffixes that distinguish the folders."""
    parts = [folder.absolute().parts for folder in folders]
    for length in range(1, max(map(len, parts)) + 1):
        names = [Path(*each[-length:]).as_posix() for each in parts]
        if len(set(names)) == len(names):
            return names
    raise ValueError("a run is given twice; name each workdir once")


def comparison_page(runs: Sequence[RunFiles], folder: Path) -> Page:
    """Returns the report that compares several runs; links are relative to `folder`."""
    done = sum(run.finished for run in runs)
    sections = [
        Section("Scores", [Text(_summary(runs), lead=True), _scores(runs, folder)]),
        Section("Curves", [Charts(overlaid_curves(runs))]),
        Section("Score and time", [Charts(score_time_charts(runs))]),
        Section("Schedules", _schedules(runs)),
        Section("Config differences", [_differences(runs)]),
    ]
    subtitle = f"{done} of {counted(len(runs), 'run')} {'is' if done == 1 else 'are'} finished"
    kept = [
        each for each in sections if any(not isinstance(part, Charts) or part.charts for part in each.parts)
    ]
    return Page(f"Comparison of {counted(len(runs), 'run')}", subtitle, kept)


def _summary(runs: Sequence[RunFiles]) -> list[str]:
    scored = [run for run in runs if run.scores]
    if not scored:
        return ["No validation image has been scored yet."]
    metric = common_task(runs).metrics[0]
    order = sorted(scored, key=lambda run: metric.of(run.scores) or 0.0, reverse=not metric.lower_is_better)
    best, worst = order[0], order[-1]
    text = (
        f"{best.name} has the best {metric.title} of {counted(len(scored), 'run')}: "
        f"{metric.text(metric.of(best.scores))} on {counted(best.scores['images'], 'validation image')}. "
        f"{worst.name} has the worst: {metric.text(metric.of(worst.scores))}."
    )
    differ = [name for name in _SHARED if len({str(run.config.get(name)) for run in runs}) > 1]
    if differ:
        verb = "differs" if len(differ) == 1 else "differ"
        return [text, f"The runs have different validation images, because {join_names(differ)} {verb}."]
    return [text, "All runs have the same validation images."]


def _scores(runs: Sequence[RunFiles], folder: Path) -> Table:
    columns = [Column("run"), Column("model"), Column("finished"), Column("epochs", "count")]
    metrics = [each for each in common_task(runs).metrics if any(each.name in run.scores for run in runs)]
    columns += [Column(each.title, each.format) for each in metrics]
    columns += [Column("trainable parameters", "count"), Column("time", "seconds")]
    columns += [Column("time in steps", "percent")]
    rows: list[list[Any]] = []
    for run in runs:
        goodput = run.json(workdir_files.GOODPUT)
        rows.append([_linked(run, folder), run.config["model"], run.finished, len(run.epochs)])
        rows[-1] += [each.of(run.scores) for each in metrics]
        rows[-1] += [run.trained_parameters, sum(goodput["seconds"].values()) if goodput else None]
        rows[-1] += [goodput.get("share")]
    return Table("Scores of the runs on validation images", columns, rows)


def _linked(run: RunFiles, folder: Path) -> Link | str:
    report = run.workdir / workdir_files.REPORT
    if not report.is_file():
        return run.name
    return Link(run.name, Path(os.path.relpath(report, folder)).as_posix())


def _schedules(runs: Sequence[RunFiles]) -> list[Part]:
    """Returns each distinct schedule once, with the runs that have it."""
    groups: dict[str, list[RunFiles]] = {}
    for run in runs:
        groups.setdefault(_schedule_text(run), []).append(run)
    columns = [Column("schedule"), Column("runs", "count"), Column("names")]
    rows = [
        [schedule, len(each), ", ".join(run.name for run in each[:5]) + (" …" if len(each) > 5 else "")]
        for schedule, each in groups.items()
    ]
    parts: list[Part] = [Table("Distinct schedules of the runs", columns, rows)]
    shown = [each[0] for each in groups.values() if each[0].epochs][:_MAX_SCHEDULES]
    timelines = {run: run.executed() for run in shown}
    rates = [value for each in timelines.values() for value in each.rates().ravel() if value > 0]
    limits = color_limits(rates, log=True)
    charts = [
        timeline_chart(f"Schedule of {run.name}", each, limits, run.phase_spans())
        for run, each in timelines.items()
    ]
    return [*parts, Charts(charts)] if charts else parts


def _schedule_text(run: RunFiles) -> str:
    phases = (
        f"{each['name']}: {each['train']} for {counted(each['epochs'], 'epoch')}" for each in run.schedule
    )
    return ", then ".join(phases)


def _differences(runs: Sequence[RunFiles]) -> Table | Text:
    """Returns a table of the config fields that differ between runs."""
    configs = [dict(flatten(run.config)) for run in runs]
    names = sorted({name for config in configs for name in config})
    differ = [name for name in names if len({repr(config.get(name)) for config in configs}) > 1]
    if not differ:
        return Text(["All runs have the same config."])
    rows = [
        [run.name, *(_value(config.get(name)) for name in differ)]
        for run, config in zip(runs, configs, strict=True)
    ]
    columns = [
        Column("run"),
        *(Column(name.replace("schedule.phases.", "phase "), "code") for name in differ),
    ]
    return Table("Config fields that differ between runs", columns, rows)


def _value(value: Any) -> str:
    return "" if value is None else str(value)


def flatten(values: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the values of nested dictionaries and lists with dotted names."""
    items = values.items() if isinstance(values, Mapping) else enumerate(values)
    for name, value in items:
        if is_stored_object(value):
            yield f"{prefix}{name}", f"{shown_object(value)} [{value['digest'][:8]}]"
        elif isinstance(value, Mapping | list) and value:
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
