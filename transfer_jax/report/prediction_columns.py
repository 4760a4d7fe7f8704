"""The columns of predictions in files and tables.

All files have `image`, `label` if it is known, and `predicted`. Then follow all predictions, in columns such
as `p(cat)`; or, of many classes, `p_predicted`, `p_label` (the probability of the true class if it is known),
and the next most probable classes with their probabilities, `top_2`, `p_2` and so on.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from transfer_jax.tasks import Task
from transfer_jax.tasks.top_predictions import TOP, Predicted, TopPredictions

IMAGE, LABEL, PREDICTED, P_PREDICTED, P_LABEL, ERROR = (
    *("image", "label", "predicted", "p_predicted", "p_label"),
    "error",
)


def stored_name(name: str) -> str:
    r"""Returns a name as files of predictions have it.

    Names of files that are not UTF-8 have lone surrogates, which other programs cannot read; a file has
    escapes such as `\udce9` in their place.
    """
    return name.encode(errors="backslashreplace").decode()


def top_columns(classes: int) -> list[tuple[str, str]]:
    """Returns the columns of the most probable classes and of their probabilities, most probable first."""
    rest = [(f"top_{place}", f"p_{place}") for place in range(2, min(TOP, classes) + 1)]
    return [(PREDICTED, P_PREDICTED), *rest]


def is_top(columns: Sequence[str]) -> bool:
    """Returns True if columns are those of the most probable classes of labelled images."""
    return [*columns[:5]] == [IMAGE, LABEL, PREDICTED, P_PREDICTED, P_LABEL]


def prediction_columns(
    names: Sequence[str],
    task: Task,
    predictions: Predicted,
    labels: np.ndarray | None = None,
    errors: Mapping[int, str] | None = None,
) -> dict[str, list[Any]]:
    """Returns the columns of predictions, each a list with a value for each image.

    Args:
        names: The name of each image.
        task: The task.
        predictions: The predictions, `(images, columns)`, or the most probable classes.
        labels: The labels, as the task has them; None if they are unknown.
        errors: The reasons of bad images by position. Their predictions are None, and there is a column
            `error`, which is None for good images. None adds no such column.
    """
    task = task.renamed([stored_name(name) for name in task.names])
    columns: dict[str, list[Any]] = {IMAGE: [stored_name(name) for name in names]}
    if labels is not None:
        columns[LABEL] = task.label_texts(labels)
    if isinstance(predictions, TopPredictions):
        columns |= _of_top(task, predictions, known=labels is not None)
    else:
        columns[PREDICTED] = task.answers(np.nan_to_num(predictions))
        for place, name in enumerate(task.prediction_columns):
            columns[name] = [task.rounded(value) for value in predictions[:, place].tolist()]
        for place, name in enumerate(() if labels is None else task.label_columns):
            assert labels is not None
            columns[name] = labels[:, place].tolist()
    if errors is not None:
        for name in [name for name in columns if name not in (IMAGE, LABEL)]:
            for index in errors:
                columns[name][index] = None
        columns[ERROR] = [errors.get(index) for index in range(len(names))]
    return columns


def _of_top(task: Task, top: TopPredictions, *, known: bool) -> dict[str, list[Any]]:
    """Returns the columns of the most probable classes."""
    columns: dict[str, list[Any]] = {}
    for place, (name, probability) in enumerate(top_columns(len(task.names))):
        columns[name] = [task.names[index] for index in top.classes[:, place].tolist()]
        columns[probability] = _digits(top.probabilities[:, place])
        if place == 0 and known:
            columns[P_LABEL] = _digits(top.truth)
    return columns


def _digits(values: np.ndarray) -> list[float]:
    """Returns probabilities with six digits; even the smallest one has a logarithm."""
    return [float(f"{value:.6g}") for value in values.tolist()]
