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

FORMATS: dict[str, Format] = {
    **dict.fromkeys(("accuracy", "balanced_accuracy", "weighted_accuracy", "macro_f1"), "percent"),
    **dict.fromkeys(("ece", "train_accuracy", "test_accuracy", "overfit_gap"), "percent"),
    **dict.fromkeys(("roc_auc", "log_loss", "train_log_loss", "test_log_loss"), "number"),
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
    "roc_auc": "ROC AUC",
    "macro_f1": "macro F1",
    "train_accuracy": "training accuracy",
    "optimizer_bytes": "optimizer state",
    "operations_uncached": "operations without cached features",
    "p_holm": "p (Holm)",
    "p_t": "p (t)",
    "p_mcnemar": "p (McNemar)",
    "p_wilcoxon": "p (Wilcoxon)",
    "least_p_wilcoxon": "least possible p (Wilcoxon)",
    "p_page": "p (Page)",
    "p_images": "p (over images)",
}


def display_name(name: str) -> str:
    """Returns the readable name of a column."""
    return _NAMES.get(name) or name.removesuffix("_seconds").replace("_", " ")


def column(name: str) -> Column:
    """Returns the column for a value of a trial."""
    return Column(display_name(name), FORMATS.get(name, "text"))


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

    @property
    def factor(self) -> str:
        """The factor whose levels are compared."""
        return self.study["factor"]

    @functools.cached_property
    def rows(self) -> list[dict[str, Any]]:
        """The finished trials, with `overfit_gap`, the training accuracy minus the validation accuracy."""
        path = self.folder / workdir_files.TABLE
        if not path.is_file():
            return []
        rows = replace_nonfinite(pyarrow.parquet.read_table(path).to_pylist())
        factors = {stored_name(trial["name"]): trial["factors"] for trial in self.study["trials"]}
        for row in rows:
            row |= factors.get(row["trial"], {})  # The table has texts where the types of levels differ.
            if "overfit_gap" not in row and row.get("train_accuracy") is not None:
                row["overfit_gap"] = row["train_accuracy"] - row["accuracy"]
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
            found.append({**mean, "low": interval.get("low"), "high": interval.get("high")})
        return sorted(found, key=lambda row: (row["series"], order[row["level"]]))
