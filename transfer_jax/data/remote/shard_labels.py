"""Classes and parts of a split of examples in shards."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from transfer_jax.counted import counted
from transfer_jax.data.contents import Names, ReadMany
from transfer_jax.data.dataset import ImageDataset
from transfer_jax.data.image_files import abridged
from transfer_jax.data.index import DatasetIndex
from transfer_jax.data.index.join import Joined
from transfer_jax.data.remote.range_contents import ReadOne
from transfer_jax.storage.object_listing import StoredObject
from transfer_jax.tasks import make_task

_PARTS = {
    0: re.compile(r"(?:^|[^a-z])(?:train|training|trn)(?:$|[^a-z])"),
    1: re.compile(r"(?:^|[^a-z])(?:val|valid|validation|dev|eval)(?:$|[^a-z])"),
    2: re.compile(r"(?:^|[^a-z])(?:test|testing)(?:$|[^a-z])"),
}
"""Names of the shards of training, validation and test images, in lower case."""
_WRITTEN = "label"
"""Texts of an index: the label of each example as it is written."""


def shard_parts(places: Sequence[str]) -> list[int]:
    """Returns 0, 1 or 2 for shards of training, validation or test images, by the names of the files.

    All shards are training images if none of them is named so.
    """
    names = [place.rpartition("/")[2].lower() for place in places]
    found = [next((part for part, pattern in _PARTS.items() if pattern.search(name)), 0) for name in names]
    return found if 0 in found else [0] * len(found)


def common_folder(shards: Sequence[StoredObject]) -> str:
    """Returns the folder that contains all shards, or the address of it."""
    places = [each.place.rpartition("/")[0] for each in shards]
    first, last = min(places).split("/"), max(places).split("/")
    return "/".join(_same(first, last))


def _same(first: Sequence[str], last: Sequence[str]) -> Iterator[str]:
    """Yields the parts at the beginning that are equal."""
    for one, other in zip(first, last, strict=False):
        if one != other:
            return
        yield one


def label_columns(
    joined: Joined, names: Sequence[str] | None, place: str
) -> tuple[Mapping[str, Any], dict[str, np.ndarray]]:
    """Returns classes and labels from labels as they are written: a `Finish` of `build_index`.

    Args:
        joined: The texts `label` of all examples.
        names: The classes; labels are their names or positions. None takes the labels that occur: their
            names, sorted, or all numbers up to the largest one.
        place: The folder or pattern of the shards, for errors.

    Raises:
        ValueError: If there are no examples, or labels are not among the classes.
    """
    if not joined.count:
        raise ValueError(f"the shards of {place!r} have no images with labels")
    content, lengths = joined.texts(_WRITTEN).arrays()
    written = _distinct(content, lengths)
    texts, positions = written
    numbers = [int(text) if re.fullmatch(r"\d+", text) else None for text in texts]
    if names is None and None not in numbers:
        names = [str(number) for number in range(max(number or 0 for number in numbers) + 1)]
    elif names is None:
        names = texts
    by_name = {name: place for place, name in enumerate(names)}
    labels = np.array(
        [
            by_name.get(text, number if number is not None and number < len(names) else -1)
            for text, number in zip(texts, numbers, strict=True)
        ],
        np.int32,
    )
    if np.any(labels < 0):
        beyond = [text for text, label in zip(texts, labels, strict=True) if label < 0]
        count = int(np.isin(positions, np.flatnonzero(labels < 0)).sum())
        raise ValueError(
            f"the labels of {counted(count, 'image')} of {place!r} are not among the "
            f"{counted(len(names), 'class')} {abridged(names)}: {abridged(beyond)}"
        )
    return {"classes": [*names]}, {"labels": labels[positions]}


def _distinct(content: np.ndarray, lengths: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Returns the sorted distinct texts, and the position of each text among them."""
    width = int(lengths.max(initial=1)) or 1
    ends = np.cumsum(lengths)
    table = np.zeros((len(lengths), width), np.uint8)
    rows = np.repeat(np.arange(len(lengths)), lengths)
    table[rows, np.arange(len(content)) - np.repeat(ends - lengths, lengths)] = content
    found, positions = np.unique(table.view(f"S{width}").ravel(), return_inverse=True)
    return [text.decode(errors="backslashreplace") for text in found.tolist()], positions.astype(np.int32)


def shard_dataset(
    index: DatasetIndex, read_many: ReadMany, names: Names, task: str, notes: Sequence[str] = ()
) -> ImageDataset:
    """Returns the dataset of an index with the columns `labels` and `length`, and the classes in its facts.

    Args:
        index: The index. Its parts are shards: `[place, size, tag]`.
        read_many: Reads examples.
        names: The names of the examples.
        task: `auto`, `single_label` or `ordinal`.
        notes: Sentences about what is unusual.

    Raises:
        ValueError: If shards with one label for each image have another task.
    """
    if task not in ("auto", "single_label", "ordinal"):
        raise ValueError(f"shards have one label for each image, and the task is {task}")
    classes = tuple(index.about["classes"])
    parts = np.repeat(shard_parts([place for place, *_ in index.parts]), index.part_counts)
    return ImageDataset(
        read=ReadOne(read_many),
        read_many=read_many,
        labels=index.column("labels"),
        names=names,
        class_names=classes,
        task=make_task("single_label" if task == "auto" else task, classes),
        fingerprint=index.fingerprint,
        sizes=index.get("length"),
        held_out=parts == 1 if np.any(parts == 1) else None,
        test=parts == 2 if np.any(parts == 2) else None,
        notes=tuple(notes),
    )
