"""Files of predictions in CSV, Parquet or JSON, written a batch of images at a time."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from transfer_jax.extras import require
from transfer_jax.report.prediction_columns import ERROR, IMAGE, prediction_columns
from transfer_jax.storage.atomic_write import write_atomically, write_text
from transfer_jax.tasks import Task
from transfer_jax.tasks.top_predictions import Predicted

_ROWS = 20_000
"""Number of images whose rows are in memory at once."""
_VALUES = 2_000_000
"""Largest number of values that are in memory at once."""
Columns = Mapping[str, list[Any]]


class PredictionBatch(NamedTuple):
    """The predictions of some images.

    Attributes:
        names: The name of each image.
        predictions: The predictions, `(images, columns)`, or the most probable classes.
        labels: The labels, as the task has them; None if they are unknown.
        errors: The reasons of bad images by their position in the batch; see `prediction_columns`.
    """

    names: Sequence[str]
    predictions: Predicted
    labels: np.ndarray | None = None
    errors: Mapping[int, str] | None = None


def write_predictions(
    path: Path,
    names: Sequence[str],
    task: Task,
    predictions: Predicted,
    labels: np.ndarray | None = None,
    errors: Mapping[int, str] | None = None,
) -> None:
    """Writes predictions as JSON or Parquet if the path ends in `.json` or `.parquet`, otherwise as CSV.

    Args:
        path: The file.
        names: The name of each image.
        task: The task.
        predictions: The predictions, `(images, columns)`, or the most probable classes.
        labels: The labels, as the task has them; None if they are unknown.
        errors: The reasons of bad images by position; see `prediction_columns`. The cells of None are empty
            in CSV, and null in JSON and Parquet.

    Raises:
        MissingExtraError: If the path ends in `.parquet`, and the package `pyarrow` is not installed.
    """
    whole = PredictionBatch(names, predictions, labels, errors)
    write_prediction_batches(path, task, _in_slices(whole, len(task.names)))


def write_prediction_batches(path: Path, task: Task, batches: Iterable[PredictionBatch]) -> None:
    """Writes predictions of one batch of images after the other; see `write_predictions`.

    Only one batch is in memory, except for JSON.

    Args:
        path: The file, which is complete or unchanged afterwards.
        task: The task.
        batches: The batches, at least one.
    """
    columns = (
        prediction_columns(each.names, task, each.predictions, each.labels, each.errors) for each in batches
    )
    kind = path.suffix.lower()
    if kind == ".json":
        rows = [dict(zip(each, row, strict=True)) for each in columns for row in _rows(each)]
        write_text(path, json.dumps(rows, indent=1))
    elif kind == ".parquet":
        require("pyarrow")
        write_atomically(path, lambda file: _write_parquet(file, columns))
    else:
        write_atomically(path, lambda file: _write_csv(file, columns))


def _in_slices(whole: PredictionBatch, columns: int) -> Iterator[PredictionBatch]:
    size = min(_ROWS, max(_VALUES // columns, 1))
    for first in range(0, len(whole.names), size):
        rows = slice(first, first + size)
        errors = whole.errors
        if errors is not None:
            errors = {index - first: each for index, each in errors.items() if 0 <= index - first < size}
        labels = None if whole.labels is None else whole.labels[rows]
        yield PredictionBatch(whole.names[rows], whole.predictions[rows], labels, errors)


def _rows(columns: Columns) -> Iterator[tuple[Any, ...]]:
    return zip(*columns.values(), strict=True)


def _write_csv(file: IO[bytes], batches: Iterable[Columns]) -> None:
    for number, columns in enumerate(batches):
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        if not number:
            writer.writerow(columns)
        writer.writerows(_rows(columns))
        file.write(text.getvalue().encode(errors="backslashreplace"))


def _write_parquet(file: IO[bytes], batches: Iterable[Columns]) -> None:
    """Writes a row group for each batch; texts that repeat, such as classes, are stored once in each."""
    import pyarrow
    import pyarrow.parquet as pq

    writer: Any = None
    kinds: dict[str, Any] = {}
    try:
        for columns in batches:
            if writer is None:
                kinds = {name: _kind(name, values, pyarrow) for name, values in columns.items()}
                writer = pq.ParquetWriter(file, pyarrow.schema(kinds), compression="zstd")
            arrays = [pyarrow.array(columns[name], kind) for name, kind in kinds.items()]
            writer.write_table(pyarrow.table(arrays, schema=writer.schema))
    finally:
        if writer is not None:
            writer.close()


def _kind(name: str, values: Sequence[Any], pyarrow: Any) -> Any:
    """Returns the type of a column."""
    if name in (IMAGE, ERROR):
        return pyarrow.string()
    known = next((value for value in values if value is not None), 0.0)
    if isinstance(known, str):
        return pyarrow.dictionary(pyarrow.int32(), pyarrow.string())
    if isinstance(known, int):
        return pyarrow.int8()
    return pyarrow.float32() if name.startswith(("p(", "p_")) else pyarrow.float64()
