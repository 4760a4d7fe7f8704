"""Targets in Python: classes, lists of labels, and numbers, as the labels of a dataset."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from transfer_jax.data.class_labels import class_labels, plain
from transfer_jax.data.image_files import abridged
from transfer_jax.tasks import Ordinal, Regression, Task, make_task

_NUMBER = re.compile(r"[-+]?\d+(\.\d+)?")


def make_targets(
    values: Any, task: str = "auto", names: Sequence[str] | Mapping[Any, Any] | None = None
) -> tuple[np.ndarray, Task]:
    """Returns the labels of a dataset, and its task.

    Example:
        >>> labels, task = make_targets([["cat"], ["cat", "dog"], []], "multi_label")
        >>> labels.tolist(), task.names
        ([[1, 0], [1, 1], [0, 0]], ('cat', 'dog'))

    Args:
        values: The target of each example. Classes, as for `class_labels`; or, for `multi_label`, a list of
            names or numbers for each example, or 0 and 1 `(n, labels)`; or, for `regression`, numbers `(n,)`
            or `(n, quantities)`.
        task: `single_label`, `multi_label`, `regression` or `ordinal`; `auto` is `single_label`.
        names: The classes, lowest first if they are ordered; the labels; or the quantities. None takes those
            of the values.

    Raises:
        ValueError: If values are missing, are of another kind than the task, or do not fit the names.
    """
    if task in ("auto", "single_label"):
        labels, classes = class_labels(values, names)
        return labels, make_task("single_label", classes)
    if task == "ordinal":
        return _ordinal(*class_labels(values, names), given=names is not None)
    if isinstance(names, Mapping):
        raise ValueError(f"names of the task {task} must be a list, got {names!r}")
    if task == "multi_label":
        return _multi_label(values, names)
    if task == "regression":
        return _regression(values, names)
    raise ValueError(f"task must be single_label, multi_label, regression, ordinal or auto, got {task!r}")


def _ordinal(labels: np.ndarray, names: tuple[str, ...], given: bool) -> tuple[np.ndarray, Task]:
    """Returns ordered classes: in the given order, or numbers in theirs."""
    if len(names) < 2:
        raise ValueError(f"ordered classes need two or more, got {list(names)}")
    if given:
        return labels, Ordinal(names)
    order = class_order(names)
    rank = np.empty(len(names), np.int32)
    rank[order] = np.arange(len(names))
    return rank[labels], Ordinal(tuple(names[place] for place in order))


def class_order(names: Sequence[str]) -> list[int]:
    """Returns the positions of ordered classes, lowest first, by the number that each name begins with.

    Raises:
        ValueError: If a name begins with no number, or two names begin with the same one.
    """
    numbers = [re.match(_NUMBER, name) for name in names]
    values = [None if number is None else float(number[0]) for number in numbers]
    if None in values or len({*values}) < len(values):
        raise ValueError(
            f"the order of the classes {abridged(names)} is unknown: begin their names with different "
            "numbers, lowest first, as in '0 none' and '1 mild', or give the classes in their order"
        )
    return sorted(range(len(names)), key=lambda place: values[place] or 0.0)


def _multi_label(values: Any, names: Sequence[str] | None) -> tuple[np.ndarray, Task]:
    """Returns the labels of lists of labels, or of columns of 0 and 1."""
    if getattr(values, "ndim", None) == 2:
        return _columns(np.asarray(values), names)
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise ValueError(f"labels must have a list of labels for each example, got {type(values).__name__}")
    lists = [_listed(each, place) for place, each in enumerate(values)]
    lengths = {len(each) for each in lists}
    words = any(isinstance(each, str) for row in lists for each in row)
    width = next(iter(lengths)) if len(lengths) == 1 else 0
    flags = not words and width > 1 and {each for row in lists for each in row} <= {0, 1}
    if flags and (names is None or len(names) == width):
        return _columns(np.array(lists), names)
    if names is None:
        distinct = {each for row in lists for each in row}
        if words and not all(isinstance(each, str) for each in distinct):
            raise ValueError("labels must be all names or all numbers")
        known: list[Any] = sorted(distinct)
    else:
        known = [*names] if words else [*range(len(names))]
    place = {each: position for position, each in enumerate(known)}
    if unknown := sorted({each for row in lists for each in row} - place.keys()):
        raise ValueError(
            f"labels {abridged([*map(str, unknown)])} are not among {abridged([*map(str, known)])}"
        )
    labels = np.zeros((len(lists), len(known)), np.uint8)
    for row, each in enumerate(lists):
        labels[row, [place[label] for label in each]] = 1
    task = make_task("multi_label", [*map(str, known if names is None else names)])
    return _checked_names(labels, task)


def _listed(value: Any, place: int) -> list[Any]:
    """Returns the labels of an example as a list."""
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise ValueError(
            f"labels of the task multi_label must be lists, but that of example {place} is {value!r}; a "
            "single label is a list of one"
        )
    return [plain(each) for each in value]


def _columns(array: np.ndarray, names: Sequence[str] | None) -> tuple[np.ndarray, Task]:
    """Returns labels of columns of 0 and 1."""
    wrong = array[~np.isin(array, (0, 1))]
    if wrong.size:
        raise ValueError(f"labels of the task multi_label must be 0 or 1 in each column, got {wrong[0]}")
    names = [f"label {place}" for place in range(array.shape[1])] if names is None else names
    if len(names) != array.shape[1]:
        raise ValueError(f"got {len(names)} names for {array.shape[1]} columns of labels")
    return _checked_names(array.astype(np.uint8), make_task("multi_label", names))


def _checked_names(labels: np.ndarray, task: Task) -> tuple[np.ndarray, Task]:
    if len({*task.names}) < len(task.names) or not task.names:
        raise ValueError(f"names of labels must be different and at least one, got {abridged(task.names)}")
    return labels, task


def _regression(values: Any, names: Sequence[str] | None) -> tuple[np.ndarray, Task]:
    """Returns numbers `(n, quantities)`."""
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"labels of the task regression must be numbers: {error}") from None
    array = array[:, None] if array.ndim == 1 else array
    if array.ndim != 2:
        raise ValueError(
            f"labels of the task regression must have the shape (n,) or (n, quantities), got {array.shape}"
        )
    width = array.shape[1]
    if names is None:
        names = ["value"] if width == 1 else [f"value {place}" for place in range(width)]
    if len(names) != width or len({*names}) < width:
        raise ValueError(f"got the names {abridged([*names])} for {width} columns of numbers")
    if np.any(missing := ~np.isfinite(array).all(-1)):
        raise ValueError(
            f"labels are missing or infinite for {np.count_nonzero(missing):,} of {len(array):,} examples "
            f"(first at position {int(np.argmax(missing))}); leave these examples out"
        )
    return array.astype(np.float32), Regression(tuple(names))
