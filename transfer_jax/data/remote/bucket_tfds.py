"""Datasets of tensorflow-datasets in object storage, whose records are read by ranges."""

import functools
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from transfer_jax.data.contents import Content, NumberedNames
from transfer_jax.data.dataset import ImageDataset
from transfer_jax.data.decode import BadImageError
from transfer_jax.data.image_files import abridged
from transfer_jax.data.index import DatasetIndex, IndexProgress, PartIndex, build_index, index_place
from transfer_jax.data.remote.array_record_file import DamagedRecordsError, chunk_records, read_footer
from transfer_jax.data.remote.range_contents import RangeContents, ReadOne, in_shard
from transfer_jax.data.tfds import prepared_folder
from transfer_jax.data.tfds_features import choose_image, choose_label, feature_tasks
from transfer_jax.data.tfds_labels import ReadLabels, finished_labels
from transfer_jax.data.tfds_records import ReadFeature, Records, prepared_split
from transfer_jax.storage.byte_ranges import ByteRange, storage_error
from transfer_jax.storage.object_cache import ObjectCache
from transfer_jax.storage.object_listing import StoredObject, shard_files
from transfer_jax.storage.range_file import RangeFile
from transfer_jax.storage.range_reads import RangeReader, connection
from transfer_jax.storage.remote import protocol_and_path
from transfer_jax.tasks import task_from_json
from transfer_jax.user_cache import user_cache

_KIND = "bucket tfds 1"
_WINDOW = 1 << 23
"""Bytes that are read at once while a shard is indexed."""
_BLOCK = 512
"""Records in a block while a shard is indexed."""
_SMALL = 1 << 24
"""Largest size of a file that describes a dataset."""


class BucketShard(NamedTuple):
    """Consecutive records of an array_record file in object storage.

    Attributes:
        file: Its address.
        size: Its size in bytes.
        tag: Its version, as `ByteRange.tag`.
        skip: Number of records before them.
        take: Number of records.
        records: Number of records in the file.
    """

    file: str
    size: int
    tag: str
    skip: int
    take: int
    records: int

    def chunks(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns the positions of the chunks and of the end, and their numbers of records, as `read_footer`.

        Raises:
            ValueError: If the file is truncated or damaged, or has another number of records.
        """
        reader = RangeReader()

        def read(start: int, stop: int) -> bytes:
            return reader.read([ByteRange(self.file, start, stop, self.size, self.tag)])[0]

        try:
            offsets, counts = read_footer(read, self.size)
        except DamagedRecordsError as error:
            raise ValueError(f"{self.file} is truncated or damaged: {error}; copy it again") from error
        if counts.sum() != self.records:
            raise ValueError(
                f"{self.file} has {counts.sum():,} records, dataset_info.json says {self.records:,}; "
                "prepare the dataset again"
            )
        return offsets, counts

    def places(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns the chunk of each record: its position and number of bytes; and its place in the chunk."""
        offsets, counts = self.chunks()
        rows = np.concatenate([np.arange(count) for count in counts])
        chosen = slice(self.skip, self.skip + self.take)
        starts, lengths = np.repeat(offsets[:-1], counts), np.repeat(np.diff(offsets), counts)
        return starts[chosen], lengths[chosen], rows[chosen].astype(np.int32)

    def blocks(self) -> Iterator[list[bytes]]:
        """Yields all records in order, in blocks."""
        starts, lengths, rows = self.places()
        file = RangeFile(StoredObject(self.file, self.size, self.tag), RangeReader(), _WINDOW)
        block: list[bytes] = []
        before, records = -1, []
        for start, length, row in zip(starts.tolist(), lengths.tolist(), rows.tolist(), strict=True):
            if start != before:
                file.seek(start)
                records, before = chunk_records(file.read(length), start), start
            block.append(records[row])
            if len(block) == _BLOCK:
                yield block
                block = []
        if block:
            yield block


class _ReadPart(ReadLabels):
    """A function from a shard to its labels, and the places of its records."""

    def __call__(self, part: Any) -> PartIndex:
        shard = BucketShard(*part)
        found = self.read(shard)
        starts, lengths, rows = shard.places()
        places = {"offset": starts, "length": lengths, "row": rows}
        return PartIndex({**found.columns, **places}, found.texts, found.about)


class _Feature:
    """Decodes one feature of the record of a position from the bytes of its chunk."""

    def __init__(self, feature: ReadFeature) -> None:
        self._feature = feature

    def __call__(self, content: bytes, index: DatasetIndex, position: int) -> Content | BadImageError:
        try:
            records = chunk_records(content, int(index.column("offset")[position]))
            return self._feature.value(records[int(index.column("row")[position])])
        except (DamagedRecordsError, IndexError) as error:
            return BadImageError(f"record {position:,} is damaged: {error}")


def from_bucket_tfds(
    name: str,
    split: Any = "train",
    data_dir: str = "",
    *,
    image: str | None = None,
    label: str | None = None,
    task: str = "auto",
    cache: ObjectCache | None = None,
    progress: IndexProgress | None = None,
) -> ImageDataset:
    """Reads a dataset in object storage that tensorflow-datasets has prepared, as `from_tfds` does.

    The records are read once, for their labels, into an index beside them, by all processes of a run.
    Then a record is read when it is needed, by its position, and kept in a local cache of bounded size.

    Args:
        name: As for `from_tfds`.
        split: As for `from_tfds`.
        data_dir: The address of the folder of prepared datasets.
        image: As for `from_tfds`.
        label: As for `from_tfds`.
        task: As for `from_tfds`.
        cache: The cache of records; None takes the default one.
        progress: Receives the progress of the index.

    Raises:
        ValueError: As `from_tfds`.
        StorageError: If object storage is not readable.
    """
    folder, address = _description(name, data_dir.rstrip("/"))
    info, parts = prepared_split(folder, split)
    found = shard_files(f"{address}/*array_record*", ())
    stored = {each.place.rpartition("/")[2]: each for each in found}
    files = [os.path.basename(os.fspath(part.filename)) for part in parts]
    if missing := sorted({*files} - stored.keys()):
        raise ValueError(f"{info.full_name} is incomplete: {abridged(missing, 1)} missing in {address}")
    shards = []
    for file, part in zip(files, parts, strict=True):
        take = part.examples_in_shard - part.skip if part.take == -1 else part.take
        each = stored[file]
        shards.append(BucketShard(each.place, each.size, each.tag, part.skip, take, part.examples_in_shard))
    images, labels = choose_image(info, image), choose_label(info, label, task)
    kind = feature_tasks(labels.feature)[0] if task == "auto" else task
    records = Records(info, (), "")
    read = _ReadPart(address, records.feature(labels.name), labels, info.full_name)
    key = {"dataset": info.full_name, "label": labels.name, "task": kind, "classes": read.classes}
    index = build_index(
        *(_KIND, key, [[*shard] for shard in shards], read),
        *(index_place(address, f"{_KIND} {split} {labels.name} {kind}"), progress),
        finish=functools.partial(finished_labels, chosen=labels, task=kind),
        total=sum(shard.take for shard in shards),
    )
    feature = _Feature(records.feature(images.name, decoded=False))
    reader = RangeReader(ObjectCache() if cache is None else cache)
    read_many = RangeContents(index, in_shard, reader, feature)
    positions, found_task = index.column("labels"), task_from_json(index.about["task"])
    unlabelled = np.flatnonzero(positions < 0) if found_task.kind in ("single_label", "ordinal") else []
    if len(unlabelled) == len(index):
        raise ValueError(
            f"split {split!r} of {name} has no examples with a label; "
            f"choose another split among {', '.join(sorted(info.splits))}"
        )
    dataset = ImageDataset(
        read=ReadOne(read_many),
        read_many=read_many,
        labels=np.maximum(positions, 0) if len(unlabelled) else positions,
        names=NumberedNames(f"{name} {split} ", len(index)),
        class_names=found_task.names,
        task=found_task,
        fingerprint=hashlib.sha256(f"{index.fingerprint} {images.name}".encode()).hexdigest(),
    )
    return dataset.subset(np.flatnonzero(positions >= 0)) if len(unlabelled) else dataset


def _description(name: str, data_dir: str) -> tuple[Path, str]:
    """Returns a local folder with the files that describe a dataset, and the address of its shards."""
    kind, path = protocol_and_path(data_dir)
    system = connection(kind)
    wanted = name.partition(":")[0]
    digest = hashlib.sha256(f"{data_dir} {wanted}".encode()).hexdigest()[:16]
    local = user_cache("tfds_descriptions") / digest / str(os.getpid())
    shutil.rmtree(local, ignore_errors=True)
    local.mkdir(parents=True)
    try:
        system.invalidate_cache()
        found: list[str] = []
        for depth in ("*", "*/*"):
            found += system.glob(f"{path}/{wanted}/{depth}/dataset_info.json")
        found += system.glob(f"{path}/{wanted}/dataset_info.json")
        for info in found:
            target = local / str(info).removeprefix(f"{path}/")
            target.parent.mkdir(parents=True, exist_ok=True)
            system.get_file(info, str(target))
        folder = prepared_folder(name, local)
        there = f"{path}/{folder.relative_to(local).as_posix()}"
        for entry in system.ls(there, detail=True):
            file = entry["name"].rpartition("/")[2]
            if entry["type"] == "file" and entry["size"] <= _SMALL and "array_record" not in file:
                system.get_file(entry["name"], str(folder / file))
    except ValueError as error:
        raise ValueError(str(error).replace(str(local), data_dir)) from None
    except Exception as error:
        raise storage_error(data_dir, error) from error
    return folder, f"{kind}://{there}"
