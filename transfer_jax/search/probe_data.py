"""The examples of a probe: features by depth, labels, and the validation part that chooses nothing."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from transfer_jax.counted import counted
from transfer_jax.data import ImageDataset, has_own_split, stratified_split
from transfer_jax.data.class_labels import class_labels
from transfer_jax.tasks import SingleLabel, Task

_OPTION = "validation (--validation)"


@dataclasses.dataclass(frozen=True)
class ProbeData:
    """Labels with a training part and a validation part.

    Attributes:
        task: The task, with the constants of the training part.
        labels: Labels, as the task has them.
        train: Positions of the training part.
        validation: Positions of the validation part.
        groups: Group of each example `(n,)`; examples of a group, such as near duplicates, stay together.
        weights: Weight of each example `(n,)`.
    """

    task: Task
    labels: np.ndarray
    train: np.ndarray
    validation: np.ndarray
    groups: np.ndarray
    weights: np.ndarray


def probe_data(labels: Any, validation: Any, seed: int) -> ProbeData:
    """Returns the parts of a probe.

    Args:
        labels: `n` classes as names or numbers, or the `ImageDataset` that the features are of, with targets
            of any task. A dataset with a split of its own keeps it; its weights and its groups of near
            duplicates count.
        validation: A fraction, bool `(n,)`, or positions of the validation part.
        seed: Seed of a split by fraction.

    Raises:
        ValueError: If labels or parts are invalid.
    """
    dataset = labels if isinstance(labels, ImageDataset) else _dataset(labels)
    dataset = dataclasses.replace(dataset, parent=None, rows=None)  # Positions are those in it.
    count = len(dataset)
    if isinstance(validation, float):
        train, held_out = (part.rows for part in stratified_split(dataset, validation, seed, _OPTION))
    else:
        held_out = _positions(validation, count)
        train = np.setdiff1d(np.arange(count), held_out)
        _check_parts(dataset, train, held_out)
    assert train is not None  # Both parts have a parent.
    assert held_out is not None
    groups = np.arange(count) if dataset.together is None else dataset.together
    if has_own_split(dataset) or not isinstance(validation, float):  # Groups may be on both sides of it.
        groups = np.where(np.isin(np.arange(count), held_out), -1 - np.arange(count), groups)
    weights = np.ones(count) if dataset.weights is None else dataset.weights
    return ProbeData(
        dataset.task.fitted(dataset.labels[train]),
        dataset.labels,
        train,
        held_out,
        groups,
        weights.astype(np.float32),
    )


def features_by_depth(features: Any, count: int) -> dict[str, np.ndarray]:
    """Returns features as float32 arrays `(n, channels)` by depth.

    Args:
        features: The result of `extract_features`: a dictionary or a `FeatureCache`; or one array.
        count: Number of labels.

    Raises:
        ValueError: If a shape does not fit, or a value is not finite.
    """
    if hasattr(features, "gather"):
        features = features.gather(np.arange(len(features)))
    if not isinstance(features, Mapping):
        features = {"features": features}
    found = {name: np.asarray(value, np.float32) for name, value in features.items()}
    for name, value in found.items():
        if value.ndim != 2 or len(value) != count:
            raise ValueError(
                f"the features {name!r} must have the shape ({count:,}, channels) for {count:,} labels, got "
                f"{value.shape}; extract_features pools them with pool='mean'"
            )
        if not np.isfinite(value).all():
            raise ValueError(f"the features {name!r} have values that are no finite numbers")
    if not found:
        raise ValueError("there are no features")
    return found


def padded(features: np.ndarray, multiple: int = 128) -> np.ndarray:
    """Returns features with channels of zeros, so that depths of similar widths share a program."""
    return np.pad(features, ((0, 0), (0, -features.shape[1] % multiple)))


def _dataset(labels: Any) -> ImageDataset:
    positions, names = class_labels(labels)

    def no_image(index: int) -> bytes:
        raise OSError(f"example {index} has no image")

    return ImageDataset(
        no_image, positions, [f"example {index}" for index in range(len(positions))], names, ""
    )


def _positions(validation: Any, count: int) -> np.ndarray:
    chosen = np.asarray(validation)
    if chosen.dtype == bool and chosen.shape == (count,):
        return np.flatnonzero(chosen)
    if chosen.dtype.kind not in "iu" or chosen.ndim != 1:
        raise ValueError(
            f"validation must be a fraction such as 0.25, bool ({count},), or positions of examples; got "
            f"{chosen.dtype} of shape {chosen.shape}"
        )
    if chosen.size and not 0 <= chosen.min() <= chosen.max() < count:
        raise ValueError(f"validation must be in 0..{count - 1}, got {chosen.min()}..{chosen.max()}")
    return np.unique(chosen)


def _check_parts(dataset: ImageDataset, train: np.ndarray, validation: np.ndarray) -> None:
    labels = dataset.labels
    if not isinstance(dataset.task, SingleLabel):
        if not len(validation) or len(train) < 2:
            raise ValueError(
                "a probe needs validation examples, and at least two training examples; got "
                f"{counted(len(validation), 'validation example')} and "
                f"{counted(len(train), 'training example')}"
            )
    elif not len(validation) or len(np.unique(labels[train])) < 2:
        raise ValueError(
            "a probe needs validation examples, and training examples of at least two classes; got "
            f"{counted(len(validation), 'validation example')} and "
            f"{counted(len(np.unique(labels[train])), 'class')}"
        )
