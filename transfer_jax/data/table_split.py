"""The column of a table that says which images are for training, validation and test."""

import collections
from collections.abc import Sequence
from typing import NamedTuple

from transfer_jax.data.image_files import abridged
from transfer_jax.data.split_folders import part_of_split

TRUTH_COLUMNS = {
    "isvalid": True,
    "isval": True,
    "isvalidation": True,
    "validation": True,
    "isheldout": True,
    "heldout": True,
    "validcol": True,
    "istest": True,
    "istrain": False,
    "istraining": False,
    "istrainingimage": False,
}
"""Columns of true and false; the value says whether a true cell stands for a validation image."""
SPLIT_COLUMNS = ("split", "splits", "datasplit", "traintestsplit", "trainvaltest")
"""Columns that can only be a split."""
OTHER_COLUMNS = ("set", "dataset", "subset", "partition", "fold", "usage", "part", "phase", "mode")
"""Columns that are a split if their values are names of parts."""
_TRUE, _FALSE = ("true", "t", "yes", "y", "1", "1.0"), ("false", "f", "no", "n", "0", "0.0")


class TableSplit(NamedTuple):
    """The split that a column contains.

    Attributes:
        parts: `training`, `validation` or `test` for each row; None if the column contains no split.
        notes: Sentences about the column.
    """

    parts: list[str] | None
    notes: list[str]


def read_split(column: str, values: Sequence[str], lines: Sequence[int], where: str) -> TableSplit:
    """Reads a column such as `split`, with `train` and `val`, or `is_valid`, with true and false.

    Args:
        column: The name of the column in lower case, without spaces and punctuation.
        values: The cells, `(rows,)`.
        lines: The line of each row.
        where: The table and the column, for messages.

    Raises:
        ValueError: If a value is unknown, or if there are validation images but no training images.
    """
    part_of = _parts(column, {*values})
    known = sorted(value for value, part in part_of.items() if part)
    if column in OTHER_COLUMNS and not known:
        return TableSplit(None, [])
    if unknown := sorted({*part_of} - {*known}):
        raise ValueError(
            f"{where} has unknown values: {abridged(unknown)}, first in line "
            f"{lines[[*values].index(unknown[0])]}. Known are 'train', 'val' and 'test', and true and false "
            "in 'is_valid'; correct the values, or rename the column if it is no split"
        )
    counts = collections.Counter(map(part_of.get, values))
    if len(counts) == 1:
        return TableSplit(None, [f"{where} contains only {values[0]!r}, so it gives no split"])
    if not counts["training"]:
        raise ValueError(f"{where} has no training images, only {abridged(known)}: add rows with 'train'")
    shown = [f"{counts[part]:,} {part}" for part in ("training", "validation", "test") if counts[part]]
    note = f"{where} gives the split: {', '.join(shown[:-1])} and {shown[-1]} images"
    return TableSplit([part_of[value] or "" for value in values], [note])


def _parts(column: str, values: set[str]) -> dict[str, str | None]:
    """Returns the part that each value names, `training`, `validation` or `test`; None for unknown values."""
    parts = {value: part_of_split(value.strip()) for value in values}
    if column not in TRUTH_COLUMNS:
        return parts
    aside = "test" if column == "istest" else "validation"
    true, false = (aside, "training") if TRUTH_COLUMNS[column] else ("training", "validation")
    for value in values:
        word = value.strip().casefold()
        if word in _TRUE or word in _FALSE:
            parts[value] = true if word in _TRUE else false
    return parts
