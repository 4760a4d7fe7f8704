"""The report of a search within a budget, from its record."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transfer_jax.counted import counted
from transfer_jax.report.page.chart_style import COLOURS, axis, by_series, chart, tooltips
from transfer_jax.report.page.elements import (
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
from transfer_jax.report.page.formats import capitalized, seconds
from transfer_jax.report.page.html import write_page
from transfer_jax.report.page.reproduce_section import environment_parts
from transfer_jax.report.page.run_files import read_json
from transfer_jax.storage import workdir_files
from transfer_jax.tasks import Task, task_from_json

Trial = Mapping[str, Any]


def is_search(folder: Path) -> bool:
    """Returns whether a folder is that of a search within a budget."""
    return (folder / workdir_files.SEARCH).is_file()


def write_search_report(folder: Path, path: Path | None = None) -> Path:
    """Writes the report of a search, finished or not.

    Args:
        folder: The folder of the search.
        path: The HTML file; `report.html` in the folder by default.

    Returns:
        The path of the file.
    """
    record = read_json(folder / workdir_files.SEARCH)
    return write_page(search_page(record, folder), path or folder / workdir_files.REPORT)


def search_page(record: Mapping[str, Any], folder: Path) -> Page:
    """Returns the report of a search.

    Args:
        record: The content of `search.json`.
        folder: The folder of the search.
    """
    task = task_from_json(record["task"])
    finished = [each for each in record["trials"] if each["status"] == "finished"]
    best = next((each for each in finished if each["name"] == record["best"]), None)
    sections = [
        Section("Summary", [_summary(record, task, finished, best), _tiles(record, task, finished, best)]),
        Section("Tried models", _charts(task, finished, best)),
        Section("Networks", _networks(record, task)),
        Section("Trials", [_trials(record, task, folder)]),
        Section("Reproduce", _reproduce(record, folder)),
    ]
    title = f"The best model of {seconds(record['budget'])}"
    state = "" if record["finished"] else "; the search is not finished"
    about = f"{counted(len(finished), 'trained model')}{state}"
    return Page(title, about, [each for each in sections if each.parts])


def _summary(record: Mapping[str, Any], task: Task, finished: Sequence[Trial], best: Trial | None) -> Text:
    if best is None:
        return Text(["There is no model yet."], lead=True)
    headline = task.headline
    score = headline.text(headline.of(best["scores"]))
    images = counted(best["validation_images"], "validation image")
    lines = [
        f"The best of {counted(len(finished), 'model')} is {best['network']}, {best['text']}: "
        f"{headline.title} {score} of {images}, which chose it."
    ]
    if record["optimism"]:
        gain, error = record["optimism"]
        lines.append(
            f"These images chose it: its {headline.title} on them is estimated to be better than on others "
            f"by {headline.difference_text(gain)} (± {headline.difference_text(error).lstrip('+-')})."
        )
    if record["test"]:
        tested = headline.text(headline.of(record["test"]))
        images = counted(record["test"]["images"], "test image")
        lines.append(f"Its {headline.title} of {images}, which chose nothing, is {tested}.")
    if reason := _reason(task, finished, best):
        lines.append(reason)
    lines.append(_more_time(task, finished))
    return Text([each for each in lines if each], lead=True)


def _reason(task: Task, finished: Sequence[Trial], best: Trial) -> str:
    """Returns why the best model won: its gain over the best heads alone, and over the next best model."""
    headline, found = task.headline, []
    same = [each for each in finished if each["validation_images"] == best["validation_images"]]
    heads = [each for each in same if each["kind"] == "heads" and each is not best]
    others = [each for each in same if each is not best]
    for group, name in ((heads, "a head on frozen features"), (others, "the next best model")):
        if not group:
            continue
        values = [each["scores"][headline.name] for each in group]
        closest = min(values) if headline.lower_is_better else max(values)
        gain = headline.gain(best["scores"][headline.name], closest)
        assert gain is not None
        found.append(f"{headline.difference_text(gain)} over {name}")
    return f"Gain of the best model: {', '.join(found)}." if found else ""


def _more_time(task: Task, finished: Sequence[Trial]) -> str:
    """Returns what twice the time would be expected to buy, from the course of the best score.

    The loss is fitted by a power law of the time, `log(loss) = a + b log(time)`.
    """
    metric = task.objective
    steps = _best_so_far(finished, task)
    values = [(each["ended"], each["best"]) for each in steps if each["ended"] > 0 and each["best"] > 0]
    if len(values) < 3 or not metric.lower_is_better:
        return ""
    x, y = ([math.log(value) for value in column] for column in zip(*values, strict=True))
    middle, mean = sum(x) / len(x), sum(y) / len(y)
    spread = sum((each - middle) ** 2 for each in x)
    if not spread:
        return ""
    slope = sum((a - middle) * (b - mean) for a, b in zip(x, y, strict=True)) / spread
    rest = sum((b - mean - slope * (a - middle)) ** 2 for a, b in zip(x, y, strict=True))
    error = math.sqrt(rest / (len(x) - 2) / spread)
    low, high = (100 * (1 - 2 ** (slope + sign * 2 * error)) for sign in (1, -1))
    return (
        f"Twice the time would lower the {metric.title} of the validation images by "
        f"{100 * (1 - 2**slope):.0f} % if its course continued (95 % interval {low:.0f} to {high:.0f} %; "
        f"a power law through {len(values)} points)."
    )


def _tiles(record: Mapping[str, Any], task: Task, finished: Sequence[Trial], best: Trial | None) -> Tiles:
    tiles, headline = [], task.headline
    if record["test"]:
        note = f"{counted(record['test']['images'], 'image')} that chose nothing"
        tiles.append(Tile(f"test {headline.title}", headline.text(headline.of(record["test"])), note))
    if best is not None:
        note = f"{counted(best['validation_images'], 'image')} that chose the model"
        value = headline.text(headline.of(best["scores"]))
        tiles.append(Tile(f"validation {headline.title}", value, note))
    tiles.append(Tile("models", str(len(finished)), counted(len(record["networks"]), "network")))
    used, budget = seconds(record["used"]), seconds(record["budget"])
    tiles.append(Tile("time", used, f"of {budget}, with compilation"))
    return Tiles(tiles)


def _best_so_far(finished: Sequence[Trial], task: Task) -> list[dict[str, Any]]:
    """Returns the finished trials with all images by their ends, each with the best loss until then."""
    metric, found, best = task.objective, [], None
    most = max((each["validation_images"] for each in finished), default=0)
    for each in sorted(finished, key=lambda each: each["ended"]):
        if each["validation_images"] < most:
            continue
        value = metric.of(each["scores"])
        if value is None:
            continue
        best = value if best is None or metric.is_better(value, best) else best
        found.append({**each, "value": value, "best": best})
    return found


def _charts(task: Task, finished: Sequence[Trial], best: Trial | None) -> list[Part]:
    steps = _best_so_far(finished, task)
    if len(steps) < 2:
        return []
    headline, objective = task.headline, task.objective
    rows = [
        {
            "ended": each["ended"],
            "cost": each["ended"] - each["started"],
            "series": each["network"],
            "text": each["text"],
            "value": each["value"],
            "best": each["best"],
            "score": headline.of(each["scores"]),
        }
        for each in steps
    ]
    columns = {
        "series": Column("network"),
        "text": Column("trained"),
        "ended": Column("time", "seconds"),
        "cost": Column("seconds of the trial", "seconds"),
        "value": Column(objective.title, "number"),
        "score": Column(headline.title, "percent" if headline.format == "percent" else "number"),
    }
    names = list(dict.fromkeys(row["series"] for row in rows))
    marks = by_series(names)
    y = axis("value", capitalized(objective.title), "number", scale={"zero": False})
    x = axis("ended", "Seconds of the budget", "seconds", scale={"zero": False})
    line = {"type": "line", "interpolate": "step-after", "color": COLOURS[1], "strokeDash": [4, 3]}
    points = {"type": "point", "filled": True, "size": 70, "opacity": 1}
    spec = {
        "layer": [
            {"mark": line, "encoding": {"x": x, "y": {**y, "field": "best"}}},
            {"mark": points, "encoding": {"x": x, "y": y, **marks, "tooltip": tooltips(columns)}},
        ]
    }
    about = (
        "Each point is a model that was trained, by the time of its end. The dashed line is the best so far."
    )
    timeline = chart("Course of the search", about, rows, columns, spec, wide=True)
    by_cost = axis("cost", "Seconds of the trial (log scale)", "seconds", scale={"type": "log"})
    score = axis("score", capitalized(headline.title), columns["score"].format, scale={"zero": False})
    cost_spec = {
        "layer": [
            {"mark": points, "encoding": {"x": by_cost, "y": score, **marks, "tooltip": tooltips(columns)}},
        ]
    }
    text = "The time of a trial includes compilation, and the features that it was the first to need."
    pareto = chart(f"{capitalized(headline.title)} against cost", text, rows, columns, cost_spec, wide=True)
    return [Charts([timeline, pareto])]


def _networks(record: Mapping[str, Any], task: Task) -> list[Part]:
    if not record["networks"]:
        return []
    headline = task.headline
    form = "percent" if headline.format == "percent" else "number"
    columns = [
        Column("network"),
        Column(f"cross-validated {headline.title}", form),
        Column("LogME", "number"),
        Column("training images", "count"),
        Column("milliseconds an image", "number"),
    ]
    rows = [
        [each["name"], each["score"], each["log_me"], each["images"], 1000 * each["seconds_per_image"]]
        for each in record["networks"]
    ]
    text = "A linear model on the frozen features of the same training images scores each network."
    return [Text([text]), Table("Networks", columns, rows)]


def _trials(record: Mapping[str, Any], task: Task, folder: Path) -> Table:
    headline, objective = task.headline, task.objective
    columns = [
        Column("trial"),
        Column("network"),
        Column("trained"),
        Column("training images", "count"),
        Column("validation images", "count"),
        Column(headline.title, "percent" if headline.format == "percent" else "number"),
        Column(objective.title, "number"),
        Column("started", "seconds"),
        Column("seconds", "seconds"),
        Column("estimated", "seconds"),
        Column("state"),
    ]
    rows = []
    for each in record["trials"]:
        report = Path(workdir_files.TRIALS, each["name"], workdir_files.REPORT)
        name = Link(each["name"], report.as_posix()) if (folder / report).is_file() else each["name"]
        state = each["error"] or ("the last phase was undone" if each["undone"] else each["status"])
        ended = each["ended"]
        rows.append(
            [
                name,
                each["network"],
                each["text"],
                each["images"],
                each["validation_images"],
                headline.of(each["scores"]),
                objective.of(each["scores"]),
                each["started"],
                None if ended is None else ended - each["started"],
                each["estimate"],
                "best" if each["name"] == record["best"] else state,
            ]
        )
    return Table("Trials", columns, rows)


def _reproduce(record: Mapping[str, Any], folder: Path) -> list[Part]:
    parts: list[Part] = []
    if record["command"]:
        parts.append(Code("Command", record["command"]))
    if (folder / workdir_files.BEST_CONFIG).is_file():
        parts.append(
            Code(
                "The best model without a search", f"transfer-jax train {folder / workdir_files.BEST_CONFIG}"
            )
        )
    trials = [folder / workdir_files.TRIALS / each["name"] for each in record["trials"]]
    found = (read_json(place / workdir_files.ENVIRONMENT) for place in trials)
    return [*parts, *environment_parts(next((each for each in found if each), {}))]
