"""Predictions of labelled images, read from their files."""

import csv
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from transfer_jax.extras import require
from transfer_jax.report.prediction_columns import (
    IMAGE,
    LABEL,
    P_LABEL,
    PREDICTED,
    is_top,
    stored_name,
    top_columns,
)
from transfer_jax.report.prediction_files import write_predictions
from transfer_jax.storage import workdir_files
from transfer_jax.tasks import TASKS, Ordinal, SingleLabel, Task
from transfer_jax.tasks.top_predictions import (
    TopPredictions,
    confidence,
    predicted_class,
    truth,
)

__all__ = ["Predictions", "read_predictions", "stored_name", "write_predictions"]


@dataclasses.dataclass(frozen=True, eq=False)
class Predictions:
    """The predictions of a model for labelled images.

    Attributes:
        names: The name of each image, as `stored_name` returns it.
        task: The task, whose names are as `stored_name` returns them, without constants of the training.
        labels: The labels, as the task has them.
        values: The predictions, rounded to six decimals or digits, `(images, columns)`; or the most probable
            classes of a file that has only these.
    """

    names: tuple[str, ...]
    task: Task
    labels: np.ndarray
    values: Any

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes, labels or quantities, in the order of the columns."""
        return self.task.names

    @property
    def probabilities(self) -> np.ndarray:
        """The predictions of a task with classes or labels.

        Raises:
            ValueError: If only the most probable classes are known.
        """
        if isinstance(self.values, TopPredictions):
            raise ValueError("the predictions are the most probable classes of each image, not all of them")
        return self.values

    @property
    def predicted(self) -> np.ndarray:
        """The most probable class of each image, int `(images,)`."""
        return predicted_class(self.values)

    @property
    def confidence(self) -> np.ndarray:
        """The probability of the most probable class of each image, `(images,)`."""
        return confidence(self.values)

    @property
    def truth(self) -> np.ndarray:
        """The probability of the true class of each image, `(images,)`."""
        return truth(self.values, self.labels)

    @property
    def right(self) -> np.ndarray:
        """True for images whose most probable class is the true one, bool `(images,)`."""
        return self.predicted == self.labels


def read_predictions(path: Path) -> Predictions:
    """Returns the predictions of a file that `write_predictions` wrote for labelled images.

    The columns say which kind of task it is; ordered classes are read as classes. The classes of a file with
    the most probable ones are in `classes.json` beside it.

    Args:
        path: The file: Parquet if it ends in `.parquet`, otherwise CSV.

    Raises:
        ValueError: If the file is damaged or has no predictions of labelled images.
        MissingExtraError: If the file is in Parquet, and the package `pyarrow` is not installed.
    """
    columns = _parquet_columns(path) if path.suffix == ".parquet" else _csv_columns(path)
    task = SingleLabel(_classes(path)) if is_top([*columns]) else _task_of_columns([*columns])
    if task is None or not len(columns[IMAGE]):
        raise ValueError(f"{path} has no predictions of labelled images; its columns are {[*columns]}")
    try:
        return _predictions(columns, task)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged: {error}") from None


def _predictions(columns: Mapping[str, Sequence[Any]], task: Task) -> Predictions:
    position = {name: place for place, name in enumerate(task.names)}

    def classes(column: str) -> np.ndarray:
        return np.array([position[name] for name in columns[column]], np.int32)

    def numbers(names: Sequence[str], dtype: Any = np.float64) -> np.ndarray:
        return np.array([np.asarray(columns[name], np.float64) for name in names], dtype).T

    labels = numbers(task.label_columns, task.label_dtype) if task.label_columns else classes(LABEL)
    values: Any
    if is_top([*columns]):
        names = top_columns(len(task.names))
        ranked = np.array([classes(name) for name, _ in names]).T
        log_truth = np.log(np.maximum(np.asarray(columns[P_LABEL], np.float64), np.finfo(np.float64).tiny))
        probabilities = numbers([name for _, name in names], np.float32)
        values = TopPredictions(ranked, probabilities, log_truth.astype(np.float32))
    else:
        values = numbers(task.prediction_columns)
    return Predictions(tuple(columns[IMAGE]), task, labels, values)


def _csv_columns(path: Path) -> dict[str, Sequence[Any]]:
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.reader(file)
        header, rows = next(reader, []), [*reader]
    if any(len(row) != len(header) for row in rows):
        raise ValueError(f"{path} is damaged: a row has another number of cells than the first one")
    return dict(zip(header, [*zip(*rows, strict=True)] or [()] * len(header), strict=True))


def _parquet_columns(path: Path) -> dict[str, Sequence[Any]]:
    require("pyarrow")

    import pyarrow
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (OSError, pyarrow.ArrowInvalid) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise ValueError(f"{path} is damaged: {error}") from None
    columns = {}
    for name in table.column_names:
        column = table.column(name)
        is_text = pyarrow.types.is_string(column.type) or pyarrow.types.is_dictionary(column.type)
        columns[name] = column.to_pylist() if is_text else column.to_numpy()
    return columns


def _classes(path: Path) -> tuple[str, ...]:
    file = path.with_name(workdir_files.CLASSES)
    try:
        return tuple(json.loads(file.read_bytes()))
    except FileNotFoundError:
        raise ValueError(f"{file} is missing, which has the classes of {path.name}; restore it") from None
    except ValueError as error:
        raise ValueError(f"{file} is damaged: {error}") from None


def _task_of_columns(columns: Sequence[str]) -> Task | None:
    """Returns the task whose predictions have these columns; that of ordered classes is `single_label`."""
    if [*columns[:3]] != [IMAGE, LABEL, PREDICTED]:
        return None
    found = tuple(columns[3:])
    for made in (each for each in TASKS.values() if each is not Ordinal):
        start = f"{made.prediction_prefix}("
        task = made(tuple(each[len(start) : -1] for each in found if each.startswith(start)))
        if task.names and found == (*task.prediction_columns, *task.label_columns):
            return task
    return None
