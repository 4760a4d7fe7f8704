"""The report of a study, finished or not."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from transfer_jax.counted import counted
from transfer_jax.report.page.elements import (
    Chart,
    Charts,
    Code,
    Column,
    Link,
    Page,
    Part,
    Section,
    Table,
    Text,
    Tile,
    Tiles,
)
from transfer_jax.report.page.formats import capitalized, count, operations, seconds
from transfer_jax.report.page.html import write_page
from transfer_jax.report.page.reproduce_section import environment_parts
from transfer_jax.report.page.run_files import read_json
from transfer_jax.report.page.study_charts import level_chart, pareto_chart
from transfer_jax.report.page.study_files import StudyFiles, display_name
from transfer_jax.report.page.study_tables import comparison_parts, format_of, target_parts, trend_parts
from transfer_jax.storage import workdir_files
from transfer_jax.tasks import Task


def by_level(task: type[Task]) -> list[tuple[str, str, str]]:
    """Returns the name, the title and the text of each chart by level."""
    first, objective = task.metrics[0], task.objective
    scores = [
        (metric.name, capitalized(metric.title), f"On the validation images; {metric.note}.")
        for metric in dict.fromkeys((first, *task.metrics[1:_SHOWN], objective))
        if metric.name != "weighted_accuracy"
    ]
    return [
        *scores,
        (f"test_{first.name}", f"Test {first.title}", "On the test images, which chose nothing."),
        ("overfit_gap", "Overfit gap", f"How much better the {first.title} is on the training images."),
        ("ece", "Calibration error", "Mean distance between confidence and accuracy; lower is better."),
        ("seconds", "Time", "Wall time of a trial. Shared features count for the trial that computed them."),
    ]


_SHOWN = 3
"""Number of scores of a task that have a chart by level, apart from the one that chooses the best epoch."""


def is_study(folder: Path) -> bool:
    """Returns whether a folder is the folder of a study."""
    return (folder / workdir_files.STUDY).is_file()


def write_study_report(folder: Path, path: Path | None = None) -> Path:
    """Writes the report of a study, finished or not, from the files of its folder.

    Args:
        folder: The folder of the study.
        path: The HTML file; `report.html` in the folder by default.

    Returns:
        The path of the file.

    Raises:
        FileNotFoundError: If the folder is not the folder of a study.
        ValueError: If a file in it is damaged.
    """
    if not is_study(folder):
        raise FileNotFoundError(f"{folder} is not the folder of a study: it has no {workdir_files.STUDY}")
    return write_page(study_page(StudyFiles(folder)), path or folder / workdir_files.REPORT)


def study_page(files: StudyFiles) -> Page:
    """Returns the report of a study, with a section for each kind of results that it has."""
    study = files.study
    sections = [
        Section("Summary", [_summary(files), _tiles(files)]),
        Section(f"Results by {display_name(files.factor)}", [*_by_level(files), *trend_parts(files)]),
        Section(f"{capitalized(files.task.metrics[0].title)} and cost", _costs(files)),
        Section("Comparisons", comparison_parts(files)),
        Section("Trials", _trials(files)),
        Section("Reproduce", _origin(files)),
    ]
    title = f"Study: {display_name(study['name'])}"
    state = _finished_trials(files)
    return Page(title, f"{study['question']} — {state}", [each for each in sections if each.parts])


def _summary(files: StudyFiles) -> Text:
    paragraphs = list(files.analysis.get("sentences", []))
    finished = len(files.rows)
    analyzed = files.analysis.get("finished", finished)
    if paragraphs and analyzed != finished:
        now = f"{count(finished)} {_is(finished)} finished now"
        paragraphs.append(f"This summary covers {counted(analyzed, 'trial')}; {now}.")
    if paragraphs:
        return Text(paragraphs, lead=True)
    preliminary = "The results below are preliminary and have no intervals."
    state = f"There is no analysis yet: {_finished_trials(files)}. {preliminary}"
    return Text([files.study["question"], state], lead=True)


def _finished_trials(files: StudyFiles) -> str:
    finished = len(files.rows)
    return f"{count(finished)} of {counted(len(files.study['trials']), 'trial')} {_is(finished)} finished"


def _is(number: int) -> str:
    return "is" if number == 1 else "are"


def _tiles(files: StudyFiles) -> Tiles:
    study, rows = files.study, files.rows
    tiles = [
        Tile("trials", f"{len(rows)} of {len(study['trials'])}", counted(len(files.labels), "level")),
        Tile("seeds", count(len(study["seeds"])), "each with its own split, image order and new head"),
    ]
    metric = files.task.metrics[0]
    means = files.means(metric.name)
    if means:
        best = means[metric.best(np.array([row["mean"] for row in means]))]
        where = f"{best['series']} {best['level']}".strip()
        tiles.append(Tile(f"best mean {metric.title}", metric.text(best["mean"]), where))
    spent = [row["seconds"] for row in rows if row.get("seconds")]
    if spent:
        tiles.append(Tile("time of all trials", seconds(sum(spent)), "sum of their wall times"))
    used, without = (_total(rows, name) for name in ("operations", "operations_uncached"))
    if used and without:
        note = f"{without / used:.1f} times as many without cached features"
        tiles.append(Tile("operations", operations(used), note))
    return Tiles(tiles)


def _total(rows: Sequence[Mapping[str, Any]], name: str) -> float:
    return sum(row.get(name) or 0 for row in rows)


def _by_level(files: StudyFiles) -> list[Part]:
    drawn = [level_chart(files, *each) for each in by_level(files.task)]
    charts = [each for each in drawn if each is not None]
    return [Charts(charts)] if charts else []


def _costs(files: StudyFiles) -> list[Part]:
    drawn = [pareto_chart(files, cost) for cost in ("operations", "seconds")]
    charts: list[Chart] = [each for each in drawn if each is not None]
    parts: list[Part] = [Charts(charts)] if charts else []
    return [*parts, *target_parts(files)]


def _trials(files: StudyFiles) -> list[Part]:
    failed = [(each["trial"], each["error"]) for each in files.analysis.get("failed", [])]
    parts: list[Part] = []
    if failed:
        parts.append(Table("Failed trials", [Column("trial"), Column("error")], failed))
    if not files.rows:
        return parts
    first = files.rows[0]
    names = [name for name in first if name != "task" and not isinstance(first[name], list | dict)]
    columns = [
        Column(display_name(name), format_of(files, name, [row.get(name) for row in files.rows]))
        for name in names
    ]
    rows = [
        [_linked(files, row[name]) if name == "trial" else row.get(name) for name in names]
        for row in files.rows
    ]
    return [*parts, Table("Finished trials", columns, rows)]


def _linked(files: StudyFiles, trial: str) -> Link | str:
    target = Path(workdir_files.TRIALS, trial, workdir_files.REPORT)
    return Link(trial, target.as_posix()) if (files.folder / target).is_file() else trial


def _origin(files: StudyFiles) -> list[Part]:
    command = files.study.get("command")
    text = command if isinstance(command, str) else " ".join(command or [])
    parts: list[Part] = [Code("Command", text)] if text else []
    workdirs = [
        files.folder,
        *(files.folder / workdir_files.TRIALS / trial["name"] for trial in files.study["trials"]),
    ]
    found = next(
        (each for each in (read_json(place / workdir_files.ENVIRONMENT) for place in workdirs) if each), {}
    )
    return [*parts, *environment_parts(found)]
