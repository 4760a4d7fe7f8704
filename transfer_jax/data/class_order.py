"""Datasets with the classes of a model in its order."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from transfer_jax.data.dataset import ImageDataset


def with_classes(dataset: ImageDataset, class_names: tuple[str, ...]) -> ImageDataset:
    """Returns a dataset with the classes of a model, which contain its own classes.

    Args:
        dataset: The dataset.
        class_names: The classes of the model, in its order.

    Raises:
        ValueError: If the dataset has images of other classes.
    """
    if dataset.class_names == class_names:
        return dataset
    if dataset.labels.ndim != 1:
        return _with_columns(dataset, class_names)
    position = {name: label for label, name in enumerate(class_names)}
    present = [name for name, count in dataset.counts().items() if count]
    if unknown := sorted({*present} - {*class_names}):
        raise ValueError(
            f"the images have classes that the model does not have: {_names(unknown)}. The classes of the "
            f"model are {_names(class_names)}; use images of these classes"
        )
    labels = np.array([position.get(name, 0) for name in dataset.class_names], np.int32)[dataset.labels]
    task = dataset.task.with_names(class_names)
    return dataclasses.replace(dataset, labels=labels, class_names=class_names, task=task)


def _with_columns(dataset: ImageDataset, names: tuple[str, ...]) -> ImageDataset:
    """Returns a dataset with the columns of a model, whose names contain those of its labels."""
    if unknown := sorted({*dataset.class_names} - {*names}):
        raise ValueError(
            f"the images have {_names(unknown)}, which the model does not predict; it predicts "
            f"{_names(names)}"
        )
    known, column = {*dataset.class_names}, {name: place for place, name in enumerate(names)}
    missing = [name for name in names if name not in known]
    if missing and dataset.task.kind == "regression":
        raise ValueError(f"the images have no {_names(missing)}, which the model predicts; add these columns")
    labels = np.zeros((len(dataset), len(names)), dataset.labels.dtype)
    labels[:, [column[name] for name in dataset.class_names]] = dataset.labels
    return dataclasses.replace(dataset, labels=labels, class_names=names, task=dataset.task.with_names(names))


def _names(names: Sequence[str], limit: int = 5) -> str:
    more = f" and {len(names) - limit:,} more" if len(names) > limit else ""
    return ", ".join(map(repr, names[:limit])) + more
