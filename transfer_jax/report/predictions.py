"""Files of predictions, as CSV or JSON."""

import csv
import dataclasses
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from transfer_jax.storage.atomic_write import write_text
from transfer_jax.tasks import TASKS, Task


@dataclasses.dataclass(frozen=True, eq=False)
class Predictions:
    """The predictions of a model for labelled images.

    Attributes:
        names: The name of each image, as `stored_name` returns it.
        task: The task, whose names are as `stored_name` returns them, without constants of the training.
        labels: The labels, as the task has them.
        values: The predictions, rounded to six decimals or digits, `(images, columns)`.
    """

    names: tuple[str, ...]
    task: Task
    labels: np.ndarray
    values: np.ndarray

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes, labels or quantities, in the order of the columns."""
        return self.task.names

    @property
    def probabilities(self) -> np.ndarray:
        """The predictions of a task with classes or labels."""
        return self.values


def read_predictions(path: Path) -> Predictions:
    """Returns the predictions of a CSV file that `write_predictions` wrote for labelled images.

    The columns say which kind of task it is; ordered classes are read as classes.

    Raises:
        ValueError: If the file is damaged or has no predictions of labelled images.
    """
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        rows, columns = list(reader), list(reader.fieldnames or ())
    task = _task_of_columns(columns)
    if task is None or not rows:
        raise ValueError(f"{path} has no predictions of labelled images; its columns are {columns}")
    try:
        values = np.array([[float(row[name]) for name in task.prediction_columns] for row in rows])
        labels = np.array(
            [[float(row[name]) for name in task.label_columns] for row in rows]
            if task.label_columns
            else [task.names.index(row["label"]) for row in rows]
        ).astype(task.label_dtype)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    return Predictions(tuple(row["image"] for row in rows), task, labels, values)


def stored_name(name: str) -> str:
    r"""Returns a name as files of predictions have it.

    Names of files that are not UTF-8 have lone surrogates, which other programs cannot read; a file has
    escapes such as `\udce9` in their place.
    """
    return name.encode(errors="backslashreplace").decode()


def prediction_rows(
    names: Sequence[str],
    task: Task,
    predictions: np.ndarray,
    labels: np.ndarray | None = None,
    errors: Mapping[int, str] | None = None,
) -> Iterator[dict[str, Any]]:
    """Yields a record for each image: `image`, `label` if known, `predicted`, and the predictions in columns.

    The columns are the probabilities `p(CLASS)`; or, for several labels, `p(LABEL)` and, if known,
    `y(LABEL)`, 0 or 1; or, for regression, `value(QUANTITY)` and, if known, `true(QUANTITY)`.

    Args:
        names: The name of each image.
        task: The task.
        predictions: The predictions, `(images, columns)`.
        labels: The labels, as the task has them; None if they are unknown.
        errors: The reasons of bad images by position. Their predictions are None, and all records have an
            entry `error`, which is None for good images. None adds no such entry.
    """
    task = task.renamed([stored_name(name) for name in task.names])
    texts = None if labels is None else task.label_texts(labels)
    answers = task.answers(np.nan_to_num(predictions))
    for index, name in enumerate(names):
        row: dict[str, Any] = {"image": stored_name(name)}
        if texts is not None:
            row["label"] = texts[index]
        bad = index in (errors or {})
        row["predicted"] = None if bad else answers[index]
        for column, each in enumerate(task.prediction_columns):
            row[each] = None if bad else task.rounded(predictions[index, column])
        for column, each in enumerate(() if labels is None else task.label_columns):
            assert labels is not None
            row[each] = labels[index, column].item()
        if errors is not None:
            row["error"] = errors.get(index)
        yield row


def write_predictions(
    path: Path,
    names: Sequence[str],
    task: Task,
    predictions: np.ndarray,
    labels: np.ndarray | None = None,
    errors: Mapping[int, str] | None = None,
) -> None:
    """Writes predictions as JSON if the path ends in `.json`, otherwise as CSV.

    Args:
        path: The file.
        names: As for `prediction_rows`.
        task: As for `prediction_rows`.
        predictions: As for `prediction_rows`.
        labels: As for `prediction_rows`.
        errors: As for `prediction_rows`; the cells of None are empty in CSV, and null in JSON.
    """
    rows = list(prediction_rows(names, task, predictions, labels, errors))
    if path.suffix.lower() == ".json":
        text = json.dumps(rows, indent=1)
    else:
        lines = io.StringIO(newline="")
        writer = csv.DictWriter(lines, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
        text = lines.getvalue()
    write_text(path, text)


def _task_of_columns(columns: Sequence[str]) -> Task | None:
    """Returns the task whose predictions have these columns; that of ordered classes is `single_label`."""
    if [*columns[:3]] != ["image", "label", "predicted"]:
        return None
    found = tuple(columns[3:])
    for made in TASKS.values():
        start = f"{made.prediction_prefix}("
        task = made(tuple(each[len(start) : -1] for each in found if each.startswith(start)))
        if task.names and found == (*task.prediction_columns, *task.label_columns):
            return task
    return None
