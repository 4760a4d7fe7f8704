"""The section of a report on the classes or labels: their scores, and the errors between them.

Its size is limited: of many classes it shows those with the lowest scores and the most errors.
"""

from collections.abc import Mapping
from typing import Any

from transfer_jax.counted import counted
from transfer_jax.report.class_scores import ClassScores
from transfer_jax.report.names import visible
from transfer_jax.report.page.charts import confusion
from transfer_jax.report.page.elements import Charts, Column, Part, Section, Table, Text

MOST_CLASSES = 50
"""The largest number of classes that are all shown."""
WORST = 30
"""The number of classes, and of errors, that are shown of more classes."""
_NAMED = 5


def class_section(scores: ClassScores) -> Section:
    """Returns the section on the classes, or on the labels of a task with several for each image."""
    pairs = scores.confusions
    kind = "label" if pairs is None else "class"
    several = "labels" if pairs is None else "classes"
    titles = {"precision": "precision", "recall": "recall", "f1": "F1"}
    if pairs is None:
        titles = {"average_precision": "average precision", **titles, "threshold": "threshold"}
    few = len(scores.names) <= MOST_CLASSES
    rows = scores.rows() if few else scores.worst(WORST)
    which = (
        f"by {kind}" if few else f"of the {len(rows)} of {len(scores.names):,} {several} with the lowest F1"
    )
    columns = [Column(kind), *(Column(title, "percent") for title in titles.values())]
    table = Table(
        f"Scores {which}, on validation images",
        [*columns, Column("images", "count")],
        [_row(name, row, titles) for name, row in rows.items()],
    )
    parts: list[Part] = [] if pairs is None else [Charts([confusion(list(scores.names), pairs)])]
    if pairs is not None and not few:
        parts.append(_errors(scores))
    return Section(several.capitalize(), [*_without_images(scores, kind, several), *parts, table])


def _row(name: str, row: Mapping[str, Any], titles: Mapping[str, str]) -> list[Any]:
    return [name, *(row[score] if row["images"] else "-" for score in titles), row["images"]]


def _errors(scores: ClassScores) -> Table:
    """Returns a table of the most frequent errors between two classes."""
    assert scores.confusions is not None
    names, images = scores.names, scores.images
    rows = [
        [names[true], names[predicted], count, count / int(images[true])]
        for true, predicted, count in scores.confusions.largest_errors(WORST)
    ]
    columns = [Column("true class"), Column("predicted class"), Column("images", "count")]
    columns.append(Column("fraction of the true class", "percent"))
    return Table(f"The {len(rows)} most frequent errors", columns, rows)


def _without_images(scores: ClassScores, kind: str, several: str) -> list[Text]:
    """Returns a sentence on the classes that are not evaluated, if there are any."""
    empty = [name for name, images in zip(scores.names, scores.images, strict=True) if not images]
    if not empty:
        return []
    more = f" and {len(empty) - _NAMED:,} more" if len(empty) > _NAMED else ""
    verb = "has" if len(empty) == 1 else "have"
    text = f"{counted(len(empty), kind, several)} {verb} no validation image"
    return [Text([f"{text} ({', '.join(map(visible, empty[:_NAMED]))}{more}): trained, and not evaluated."])]
