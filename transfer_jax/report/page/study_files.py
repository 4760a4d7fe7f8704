"""What a study has so far, as its folder tells: its trials, its levels, and its analysis once it has one."""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet

from transfer_jax.report.page.elements import Column, Format, replace_nonfinite
from transfer_jax.report.page.run_files import read_json
from transfer_jax.storage import workdir_files

FORMATS: dict[str, Format] = {
    **dict.fromkeys(("accuracy", "balanced_accuracy", "weighted_accuracy", "macro_f1"), "percent"),
    **dict.fromkeys(("ece", "train_accuracy", "overfit_gap"), "percent"),
    **dict.fromkeys(("roc_auc", "log_loss", "train_log_loss"), "number"),
    "trainable_parameters": "count",
    "optimizer_bytes": "bytes",
    **dict.fromkeys(("operations", "operations_uncached"), "operations"),
    **dict.fromkeys(("extract_seconds", "compile_seconds", "train_seconds", "seconds"), "seconds"),
}
"""How the figures of a trial are written."""

_NAMES = {
    "a": "first",
    "b": "second",
    "n": "seeds",
    "where": "where",
    "ece": "calibration error",
    "roc_auc": "ROC AUC",
    "macro_f1": "macro F1",
    "train_accuracy": "accuracy in training",
    "optimizer_bytes": "optimizer state",
    "operations_uncached": "operations without caches",
    "p_holm": "p (Holm)",
    "p_t": "p (t)",
    "p_mcnemar": "p (McNemar)",
    "p_wilcoxon": "p (Wilcoxon)",
    "least_p_wilcoxon": "least possible p (Wilcoxon)",
    "p_page": "p (Page)",
    "p_images": "p (over images)",
}


def display_name(name: str) -> str:
    """A column's name as people say it."""
    return _NAMES.get(name) or name.removesuffix("_seconds").replace("_", " ")


def column(name: str) -> Column:
    """The column of a figure of a trial."""
    return Column(display_name(name), FORMATS.get(name, "text"))


@dataclasses.dataclass(frozen=True)
class StudyFiles:
    """The files of a study; what is not there is empty.

    Attributes:
        folder: Its folder.
    """

    folder: Path

    @functools.cached_property
    def study(self) -> dict[str, Any]:
        """What it asks, of which trials."""
        return read_json(self.folder / workdir_files.STUDY)

    @functools.cached_property
    def analysis(self) -> dict[str, Any]:
        """What came out; empty until it is known."""
        return replace_nonfinite(read_json(self.folder / workdir_files.ANALYSIS))

    @property
    def factor(self) -> str:
        """What the levels are levels of."""
        return self.study["factor"]

    @functools.cached_property
    def rows(self) -> list[dict[str, Any]]:
        """The trials that are over, with their `overfit_gap`, from training to held-out accuracy."""
        path = self.folder / workdir_files.TABLE
        if not path.is_file():
            return []
        rows = replace_nonfinite(pyarrow.parquet.read_table(path).to_pylist())
        for row in rows:
            if "overfit_gap" not in row and row.get("train_accuracy") is not None:
                row["overfit_gap"] = row["train_accuracy"] - row["accuracy"]
        return rows

    @functools.cached_property
    def labels(self) -> dict[Any, str]:
        """The levels in order, and what they are called."""
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
        """The factors besides that of the levels that vary."""
        trials = [trial["factors"] for trial in self.study["trials"]]
        names = dict.fromkeys(name for factors in trials for name in factors)
        return [
            name
            for name in names
            if name not in (self.factor, "seed") and len({str(each.get(name)) for each in trials}) > 1
        ]

    def series(self, factors: Mapping[str, Any]) -> str:
        """What the other factors of a trial are, in words; empty if there are none."""
        return ", ".join(f"{display_name(name)} {factors.get(name)}" for name in self.others)

    def points(self, metric: str) -> list[dict[str, Any]]:
        """A figure of every trial that has it: `series`, `level`, `seed` and `value`."""
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
        """The mean of a figure by series and level, in order, with the interval that the analysis gives it."""
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
