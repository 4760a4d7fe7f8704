"""The tables of the results of a study: comparisons, trends, and costs to reach the target."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from transfer_jax.report.page.elements import Column, Format, Part, Table, Text
from transfer_jax.report.page.study_files import StudyFiles, display_name

_FIRST = (
    "a",
    "b",
    "level",
    "where",
    "metric",
    "difference",
    "low",
    "high",
    "direction",
    "verdict",
    "p_holm",
    "p",
)
_METRIC_FORMATS: dict[str, Format] = {
    **dict.fromkeys(("difference", "low", "high"), "points"),
    **dict.fromkeys(("mean", "target"), "percent"),
}
"""The formats of columns whose metric is a percentage."""


def comparison_parts(files: StudyFiles) -> list[Part]:
    """Returns a table of the comparisons of levels with their verdicts; nothing if there are none."""
    analysis = files.analysis
    if not analysis.get("comparisons"):
        return []
    text = [
        "Each difference is between two levels with the same seed and the same split. The p-values are "
        "corrected by Holm's method for the number of tests of the study. “No difference shown” does not "
        "mean that there is no difference.",
        *analysis.get("notes", []),
    ]
    return [Text(text), *record_table(files, "Differences: first minus second", analysis["comparisons"])]


def trend_parts(files: StudyFiles) -> list[Part]:
    """Returns a table of the trends of metrics along the levels."""
    return record_table(files, "Trends along the levels", files.analysis.get("trends"))


def target_parts(files: StudyFiles) -> list[Part]:
    """Returns a table of the cost of each level to reach the target score."""
    return record_table(files, "Cost to reach the target (medians)", files.analysis.get("target"))


def record_table(files: StudyFiles, caption: str, found: Iterable[Mapping[str, Any]] | None) -> list[Part]:
    """Returns a table of records, the most important columns first; nothing if there are no records."""
    found = list(found or ())
    formats: set[Format | None] = {
        files.format(record.get("metric") or files.task.metrics[0].name) for record in found
    }
    records = [_readable(files, record) for record in found]
    if not records:
        return []
    keys = dict.fromkeys(key for record in records for key in record)
    names = sorted(keys, key=lambda key: _FIRST.index(key) if key in _FIRST else len(_FIRST))
    for name in ("test", "metric"):
        values = {record.get(name) for record in records}
        if len(values) == 1 and len(records) > 1 and name in names:
            names.remove(name)
            caption = f"{caption}; {display_name(name)}: {values.pop()}"
    columns = [_column(files, name, [record.get(name) for record in records], formats) for name in names]
    return [Table(caption, columns, [[record.get(name) for name in names] for record in records])]


def _readable(files: StudyFiles, record: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a record with the names of its levels and of its other factors."""
    found = {key: value for key, value in record.items() if not isinstance(value, Mapping | list)}
    for key, label in (("a", "a_label"), ("b", "b_label"), ("level", "label")):
        if key in found:
            found[key] = str(found.pop(label, None) or files.labels.get(found[key], found[key]))
    if "metric" in found:
        found["metric"] = display_name(found["metric"])
    where = files.series({**record, **record.get("group", {})})
    return {**found, "where": where} if where else found


def _column(files: StudyFiles, name: str, values: Sequence[Any], formats: set[Format | None]) -> Column:
    """Returns the column of some values, with the formats of the metrics of its rows."""
    if name in _METRIC_FORMATS and formats == {"percent"}:
        return Column(display_name(name), _METRIC_FORMATS[name])
    return Column(display_name(name), format_of(files, name, values))


def format_of(files: StudyFiles, name: str, values: Sequence[Any]) -> Format:
    """Returns the format of the values of a column."""
    known = [value for value in values if value is not None]
    if not known or any(isinstance(value, str | bool) for value in known):
        return "text"
    form = files.format(name)
    if form is not None:
        return form
    return "count" if all(isinstance(value, int) for value in known) else "number"
