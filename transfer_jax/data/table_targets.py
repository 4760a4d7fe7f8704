"""Targets in the cells of a table: lists of labels, columns of 0 and 1, numbers, and ordered classes."""

from collections.abc import Sequence

import numpy as np

from transfer_jax.counted import counted
from transfer_jax.data.image_files import abridged
from transfer_jax.data.table_labels import MISSING
from transfer_jax.data.targets import make_targets
from transfer_jax.tasks import Task

_SEPARATORS = "|;,"
_TRUE, _FALSE = {"1", "1.0", "true", "yes"}, {"0", "0.0", "false", "no", ""}


def table_targets(
    cells: Sequence[tuple[str, ...]],
    columns: Sequence[str],
    lines: Sequence[int],
    task: str,
    where: str,
) -> tuple[np.ndarray, Task, list[str]]:
    """Returns the labels of a table whose task is `multi_label` or `regression`, and notes.

    A single column of several labels has lists of names, separated by `|`, `;` or `,`, whichever comes first
    in this order in the cells; an empty cell has no label. Several columns have 0 or 1 for each label.

    Args:
        cells: The cells of the columns of labels, `(rows, columns)`.
        columns: The names of the columns.
        lines: The line of each row.
        task: The task.
        where: The table and its columns, for messages.

    Raises:
        ValueError: If a cell has no such value; the message names its line.
    """
    if task == "regression":
        numbers = [
            [_number(cell, line, where) for cell in row] for row, line in zip(cells, lines, strict=True)
        ]
        return *make_targets(np.array(numbers), task, [*columns]), []
    if len(columns) > 1:
        rows = [[_flag(cell, line, where) for cell in row] for row, line in zip(cells, lines, strict=True)]
        return *make_targets(np.array(rows), task, [*columns]), []
    texts = [cell.strip().strip("[](){}") for (cell,) in cells]
    separator = next((each for each in _SEPARATORS if any(each in text for text in texts)), None)
    lists = [_labels(text, separator) for text in texts]
    labels, found = make_targets(lists, task)
    if separator is None:
        note = f"{where}: no cell has several labels; they would be separated by {' or '.join(_SEPARATORS)}"
    else:
        note = f"{where}: several labels of a cell are separated by {separator!r}"
    if none := sum(not each for each in lists):
        note += f"; {counted(none, 'image has', 'images have')} none"
    return labels, found, [note]


def _labels(text: str, separator: str | None) -> list[str]:
    """Returns the labels in a cell."""
    parts = [part.strip().strip("'\"").strip() for part in (text.split(separator) if separator else [text])]
    return [part for part in dict.fromkeys(parts) if part]


def _number(cell: str, line: int, where: str) -> float:
    text = cell.strip()
    if text in MISSING:
        raise ValueError(f"{where}: no number in line {line}; fill it in or remove the row")
    try:
        return float(text.replace(",", ".") if "." not in text else text)
    except ValueError:
        raise ValueError(
            f"{where}: {text!r} in line {line} is no number, which the task regression needs"
        ) from None


def _flag(cell: str, line: int, where: str) -> int:
    text = cell.strip().casefold()
    if text in _TRUE:
        return 1
    if text in _FALSE:
        return 0
    shown = abridged(sorted(_TRUE | _FALSE - {""}), 8)
    raise ValueError(f"{where}: {cell!r} in line {line} must be one of {shown}, as each column is a label")
