"""The labels of a dataset that tensorflow-datasets has prepared, from its records or from an index."""

import functools
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from transfer_jax.data.class_labels import plain
from transfer_jax.data.image_files import abridged
from transfer_jax.data.index import DatasetIndex, IndexProgress, PartIndex, build_index, index_place
from transfer_jax.data.index.join import Joined
from transfer_jax.data.targets import make_targets
from transfer_jax.data.tfds_features import Chosen, feature_tasks
from transfer_jax.data.tfds_records import ReadFeature, Records
from transfer_jax.data.tfds_shards import Shard
from transfer_jax.tasks import Task, make_task, task_from_json

INDEXED_FROM = 20_000
"""Number of examples from which labels are kept in an index."""
_KIND = "tfds 1"


def read_labels(
    records: Records,
    chosen: Chosen,
    task: str,
    folder: Path,
    name: str,
    progress: IndexProgress | None = None,
) -> tuple[np.ndarray, Task]:
    """Returns the labels of all examples, and the task; a class of -1 is missing.

    Args:
        records: The records.
        chosen: The feature with the labels.
        task: The task; `auto` takes that of the feature.
        folder: The folder of the prepared version, beside which the index is.
        name: Name of the split, which distinguishes indexes.
        progress: Receives the progress of indexing; None shows none.

    Raises:
        ValueError: If a label is no class, or a file is truncated or damaged; or as `make_targets`.
    """
    if task == "auto":
        task = feature_tasks(chosen.feature)[0]
    read = ReadLabels(os.fspath(folder), records.feature(chosen.name), chosen, records.info.full_name)
    parts = [_described(shard) for shard in records.shards]
    if len(records) < INDEXED_FROM:
        found = [read(part) for part in parts]
        if "values" in found[0].texts:
            return _targets([text for part in found for text in part.texts["values"]], chosen, task)
        return _targets(np.concatenate([part.columns["values"] for part in found]), chosen, task)

    finish = functools.partial(finished_labels, chosen=chosen, task=task)
    key = {"dataset": records.info.full_name, "label": chosen.name, "task": task, "classes": read.classes}
    place = index_place(folder, f"tfds {name} {chosen.name} {task}")
    index: DatasetIndex = build_index(
        _KIND, key, parts, read, place, progress, finish=finish, total=len(records)
    )
    return index.column("labels"), task_from_json(index.about["task"])


_TEXTS = "texts"


def finished_labels(
    joined: Joined, chosen: Chosen, task: str
) -> tuple[Mapping[str, Any], Mapping[str, np.ndarray]]:
    """Returns the task, as the fact `task`, and the column `labels` of all shards.

    Args:
        joined: What `ReadLabels` returned of the shards.
        chosen: The feature with the labels.
        task: The task.
    """
    texts = joined.abouts[0] == _TEXTS
    values = [*joined.texts("values")] if texts else joined.column("values")
    labels, found = _targets(values, chosen, task)
    return {"task": found.to_json()}, {"labels": labels}


class RecordBlocks(Protocol):
    """A shard: its name, the position of its first record, and its records in blocks."""

    @property
    def file(self) -> str: ...
    @property
    def skip(self) -> int: ...
    def blocks(self) -> Iterator[list[bytes]]: ...


class ReadLabels:
    """A function from a shard to its labels.

    Args:
        folder: The folder of the files.
        feature: The function from a serialized example to its label.
        chosen: The feature.
        name: Name of the dataset, for messages.
    """

    def __init__(self, folder: str, feature: ReadFeature, chosen: Chosen, name: str) -> None:
        self._folder, self._feature, self._name = folder, feature, name
        inner = getattr(chosen.feature, "feature", chosen.feature)
        self._is_sequence = inner is not chosen.feature
        self.classes: list[str] | None = getattr(inner, "names", None)

    def __call__(self, part: Sequence[Any]) -> PartIndex:
        return self.read(Shard(os.path.join(self._folder, part[0]), *part[1:]))

    def read(self, shard: RecordBlocks) -> PartIndex:
        """Returns the labels of a shard, as the column or the texts `values`."""
        blocks = [self._block(shard, block) for block in _numbered(shard)]
        if isinstance(blocks[0], list):
            return PartIndex({}, {"values": [text for block in blocks for text in block]}, _TEXTS)
        return PartIndex({"values": np.concatenate(blocks)})

    def _block(self, shard: RecordBlocks, block: tuple[int, list[bytes]]) -> Any:
        """Returns the labels of consecutive examples: an array, or a list of texts."""
        first, examples = block
        values = [self._feature.value(example) for example in examples]
        if self._is_sequence and self.classes is not None:
            return self._multi_hot(shard, first, values)
        if isinstance(values[0], bytes | str):
            return [plain(value) for value in values]
        array = np.asarray(values)
        if self.classes is not None:
            self._check(shard, first, array, array)
            array = array.astype(np.int32)
        return array

    def _multi_hot(self, shard: RecordBlocks, first: int, values: list) -> np.ndarray:
        assert self.classes is not None
        lengths = [len(value) for value in values]
        rows, columns = np.repeat(np.arange(len(values)), lengths), np.concatenate(values).astype(np.int64)
        bad = np.zeros(len(values), np.int64)
        np.maximum.at(bad, rows, np.where(columns < 0, len(self.classes), columns))
        self._check(shard, first, bad, bad)
        table = np.zeros((len(values), len(self.classes)), np.uint8)
        table[rows, columns] = 1
        return table

    def _check(self, shard: RecordBlocks, first: int, numbers: np.ndarray, values: np.ndarray) -> None:
        """Raises `ValueError` if a label is beyond the classes."""
        assert self.classes is not None
        beyond = np.flatnonzero(numbers >= len(self.classes))
        if len(beyond):
            raise ValueError(
                f"{self._name}: record {first + int(beyond[0]):,} of {os.path.basename(shard.file)} has the "
                f"label {int(values[beyond[0]])}, but the {len(self.classes):,} classes are 0 to "
                f"{len(self.classes) - 1} ({abridged(self.classes)}); correct the labels and prepare it again"
            )


def _numbered(shard: RecordBlocks) -> Iterator[tuple[int, list[bytes]]]:
    """Yields blocks of records with the position of their first one."""
    first = shard.skip
    for block in shard.blocks():
        yield first, block
        first += len(block)


def _described(shard: Shard) -> list[Any]:
    return [os.path.basename(shard.file), *shard[1:]]


def _targets(values: Any, chosen: Chosen, task: str) -> tuple[np.ndarray, Task]:
    """Returns the labels of all examples, and the task; a class of -1 is missing."""
    names = getattr(getattr(chosen.feature, "feature", chosen.feature), "names", None)
    if task in ("single_label", "ordinal") and names is not None:
        return np.asarray(values, dtype=np.int32), make_task(task, names)
    if task == "regression":
        width = int(np.prod(chosen.feature.shape))
        last = chosen.name.rsplit("/", 1)[-1]
        names = [last] if width == 1 else [f"{last} {place}" for place in range(width)]
    return make_targets(values, task, names)
