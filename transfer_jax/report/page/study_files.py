"""The files of a study, read from its folder: its trials, its levels, and its analysis if there is one."""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet

from transfer_jax.report.page.elements import Column, Format, replace_nonfinite
from transfer_jax.report.page.run_files import read_json
from transfer_jax.report.predictions import stored_name
from transfer_jax.storage import workdir_files
from transfer_jax.tasks import TASKS, Task, task_class

_METRICS = {
    metric.name: metric for task in reversed(TASKS.values()) for metric in (*task.metrics, task.objective)
}
"""The scores of all tasks by name; those of classes where several tasks have a name."""
FORMATS: dict[str, Format] = {
    **{f"{part}{name}": each.format for name, each in _METRICS.items() for part in ("", "train_", "test_")},
    "ece": "percent",
    "trainable_parameters": "count",
    "optimizer_bytes": "bytes",
    **dict.fromkeys(("operations", "operations_uncached"), "operations"),
    **dict.fromkeys(("extract_seconds", "compile_seconds", "train_seconds", "seconds"), "seconds"),
}
"""The formats of the values of a trial."""

_NAMES = {
    "a": "first",
    "b": "second",
    "n": "seeds",
    "where": "where",
    "ece": "calibration error",
    **{
        f"{part}{each.name}": f"{title}{each.title}"
        for each in _METRICS.values()
        for part, title in (("", ""), ("train_", "training "), ("test_", "test "))
    },
    "optimizer_bytes": "optimizer state",
    "operations_uncached": "operations without cached features",
    "p_holm": "p (Holm)",
    "p_t": "p (t)",
    "p_wilcoxon": "p (Wilcoxon)",
    "least_p_wilcoxon": "least possible p (Wilcoxon)",
    "p_page": "p (Page)",
    "p_images": "p (over images)",
}


def display_name(name: str) -> str:
    """Returns the readable name of a column."""
    return _NAMES.get(name) or name.removesuffix("_seconds").replace("_", " ")


@dataclasses.dataclass(frozen=True)
class StudyFiles:
    """The files of a study. A missing file reads as empty.

    Attributes:
        folder: The folder of the study.
    """

    folder: Path

    @functools.cached_property
    def study(self) -> dict[str, Any]:
        """The question, the trials and the other fields of `study.json`."""
        return read_json(self.folder / workdir_files.STUDY)

    @functools.cached_property
    def analysis(self) -> dict[str, Any]:
        """The analysis of the study; empty until it exists."""
        return replace_nonfinite(read_json(self.folder / workdir_files.ANALYSIS))

    def format(self, name: str) -> Format | None:
        """Returns the format of a value of a trial; None if it has none of its own."""
        return self.task.metrics[0].format if name == "overfit_gap" else FORMATS.get(name)

    def column(self, name: str) -> Column:
        """Returns the column of a value of a trial."""
        return Column(display_name(name), self.format(name) or "text")

    @property
    def factor(self) -> str:
        """The factor whose levels are compared."""
        return self.study["factor"]

    @functools.cached_property
    def task(self) -> type[Task]:
        """The task of the trials; `SingleLabel` for studies of earlier versions, and without trials."""
        return task_class(self.rows[0] if self.rows else {})

    @functools.cached_property
    def rows(self) -> list[dict[str, Any]]:
        """The finished trials, with `overfit_gap` where it is known; see `result_row`."""
        path = self.folder / workdir_files.TABLE
        if not path.is_file():
            return []
        rows = replace_nonfinite(pyarrow.parquet.read_table(path).to_pylist())
        factors = {stored_name(trial["name"]): trial["factors"] for trial in self.study["trials"]}
        for row in rows:
            row |= factors.get(row["trial"], {})  # The table has texts where the types of levels differ.
            if "overfit_gap" not in row and row.get("train_accuracy") is not None:
                row["overfit_gap"] = row["train_accuracy"] - row["accuracy"]  # Of an earlier version.
        return rows

    @functools.cached_property
    def labels(self) -> dict[Any, str]:
        """The name of each level, in order."""
        found = {}
        for trial in self.study["trials"]:
            level = trial["factors"][self.factor]
            found.setdefault(level, str(trial.get("label") or level))
        found |= {
            each["level"]: str(each["label"]) for each in self.analysis.get("levels", []) if "label" in each
        }
        return found

    @functools.cached_property
    def others(self) -> list[str]:
        """The other factors that vary between trials."""
        trials = [trial["factors"] for trial in self.study["trials"]]
        names = dict.fromkeys(name for factors in trials for name in factors)
        return [
            name
            for name in names
            if name not in (self.factor, "seed") and len({str(each.get(name)) for each in trials}) > 1
        ]

    def series(self, factors: Mapping[str, Any]) -> str:
        """Returns the values of the other factors of a trial as text; empty if there are none."""
        return ", ".join(f"{display_name(name)} {factors.get(name)}" for name in self.others)

    def points(self, metric: str) -> list[dict[str, Any]]:
        """Returns the value of a metric of each trial that has it, with `series`, `level` and `seed`."""
        return [
            {
                "series": self.series(row),
                "level": self.labels[row[self.factor]],
                "seed": row.get("seed"),
                "value": row[metric],
            }
            for row in self.rows
            if row.get(metric) is not None and row[self.factor] in self.labels
        ]

    def _possible(self, metric: str, value: float | None) -> float | None:
        """Returns the end of an interval; of a fraction, whose intervals can be wide, from 0 to 1."""
        if value is None or self.format(metric) != "percent":
            return value
        return min(max(value, -1.0 if metric == "overfit_gap" else 0.0), 1.0)

    def means(self, metric: str) -> list[dict[str, Any]]:
        """Returns the mean of a metric by series and level, in order, with its interval in the analysis."""
        intervals = {
            (self.series(each.get("group", {})), self.labels[each["level"]]): each[metric]
            for each in self.analysis.get("levels", [])
            if isinstance(each.get(metric), Mapping)
        }
        values: dict[tuple[str, str], list[float]] = {}
        for point in self.points(metric):
            values.setdefault((point["series"], point["level"]), []).append(point["value"])
        order = {label: place for place, label in enumerate(self.labels.values())}
        found = []
        for (series, level), each in values.items():
            interval = intervals.get((series, level), {})
            mean = {"series": series, "level": level, "n": len(each), "mean": sum(each) / len(each)}
            found.append(mean | {end: self._possible(metric, interval.get(end)) for end in ("low", "high")})
        return sorted(found, key=lambda row: (row["series"], order[row["level"]]))
