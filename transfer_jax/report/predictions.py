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


@dataclasses.dataclass(frozen=True, eq=False)
class Predictions:
    """The predictions of a model for labelled images.

    Attributes:
        names: The name of each image, as `stored_name` returns it.
        class_names: The names of the classes, as `stored_name` returns them, in the order of the columns.
        labels: The indices of the true classes, int32 `(images,)`.
        probabilities: The probabilities, rounded to six decimals, `(images, classes)`.
    """

    names: tuple[str, ...]
    class_names: tuple[str, ...]
    labels: np.ndarray
    probabilities: np.ndarray


def read_predictions(path: Path) -> Predictions:
    """Returns the predictions of a CSV file that `write_predictions` wrote for labelled images.

    Raises:
        ValueError: If the file is damaged or has no predictions of labelled images.
    """
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        rows, columns = list(reader), list(reader.fieldnames or ())
    classes = tuple(name[2:-1] for name in columns[3:])
    if columns != ["image", "label", "predicted", *(f"p({name})" for name in classes)] or not rows:
        raise ValueError(f"{path} has no predictions of labelled images; its columns are {columns}")
    try:
        probabilities = np.array([[float(row[f"p({name})"]) for name in classes] for row in rows])
        labels = np.array([classes.index(row["label"]) for row in rows], np.int32)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    return Predictions(tuple(row["image"] for row in rows), classes, labels, probabilities)


def stored_name(name: str) -> str:
    r"""Returns a name as files of predictions have it.

    Names of files that are not UTF-8 have lone surrogates, which other programs cannot read; a file has
    escapes such as `\udce9` in their place.
    """
    return name.encode(errors="backslashreplace").decode()


def prediction_rows(
    names: Sequence[str],
    class_names: Sequence[str],
    probabilities: np.ndarray,
    labels: np.ndarray | None = None,
    errors: Mapping[int, str] | None = None,
) -> Iterator[dict[str, Any]]:
    """Yields a record for each image: `image`, `label` if known, `predicted`, and all probabilities.

    Args:
        names: The name of each image.
        class_names: The names of the classes, in the order of the columns.
        probabilities: The probabilities, `(images, classes)`.
        labels: The indices of the true classes, `(images,)`; None if they are unknown.
        errors: The reasons of bad images by position. Their prediction and probabilities are None, and all
            records have an entry `error`, which is None for good images. None adds no such entry.
    """
    class_names = [stored_name(name) for name in class_names]
    for index, name in enumerate(names):
        row: dict[str, Any] = {"image": stored_name(name)}
        if labels is not None:
            row["label"] = class_names[labels[index]]
        bad = index in (errors or {})
        row["predicted"] = None if bad else class_names[int(probabilities[index].argmax())]
        for column, class_name in enumerate(class_names):
            row[f"p({class_name})"] = None if bad else round(float(probabilities[index, column]), 6)
        if errors is not None:
            row["error"] = errors.get(index)
        yield row


def write_predictions(
    path: Path,
    names: Sequence[str],
    class_names: Sequence[str],
    probabilities: np.ndarray,
    labels: np.ndarray | None = None,
    errors: Mapping[int, str] | None = None,
) -> None:
    """Writes predictions as JSON if the path ends in `.json`, otherwise as CSV.

    Args:
        path: The file.
        names: As for `prediction_rows`.
        class_names: As for `prediction_rows`.
        probabilities: As for `prediction_rows`.
        labels: As for `prediction_rows`.
        errors: As for `prediction_rows`; the cells of None are empty in CSV, and null in JSON.
    """
    rows = list(prediction_rows(names, class_names, probabilities, labels, errors))
    if path.suffix.lower() == ".json":
        text = json.dumps(rows, indent=1)
    else:
        lines = io.StringIO(newline="")
        writer = csv.DictWriter(lines, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
        text = lines.getvalue()
    write_text(path, text)
