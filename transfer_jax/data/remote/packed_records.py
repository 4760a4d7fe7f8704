"""Images in array_record shards, as `transfer-jax pack` writes them.

Files of a folder:
    `pack.json`: the plan: the images, and the number of shards. It is written first.
    `images-00000-of-00016.array_record`: encoded images, one in each record, not compressed.
    `images-00000-of-00016.npz`: label, part of the split, size and name of each record; weight and group if
        there are any. It is written before its shard.
    `dataset.json`: task, classes, fingerprint and number of shards. It is written last.
"""

import functools
import io
import json
import os
import shlex
from typing import Any

import numpy as np

from transfer_jax.data.contents import Content
from transfer_jax.data.dataset import ImageDataset
from transfer_jax.data.decode import BadImageError
from transfer_jax.data.index import DatasetIndex, IndexProgress, PartIndex, build_index, index_place
from transfer_jax.data.index.join import Joined
from transfer_jax.data.index.texts import TextColumn
from transfer_jax.data.remote.array_record_file import DamagedRecordsError, chunk_records, read_footer
from transfer_jax.data.remote.range_contents import RangeContents, ReadOne, in_shard
from transfer_jax.storage.byte_ranges import ByteRange
from transfer_jax.storage.object_cache import ObjectCache
from transfer_jax.storage.object_listing import StoredObject, shard_files
from transfer_jax.storage.range_reads import RangeReader
from transfer_jax.storage.remote import is_remote
from transfer_jax.tasks import make_task

VERSION = 1
DATASET, PLAN = "dataset.json", "pack.json"
PARTS = ("training", "validation", "test")
_KIND = "packed records 1"


_LARGE = 100_000
"""Number of image files from which packing is offered."""


def packing_notes(place: str, images: int) -> tuple[str, ...]:
    """Returns a sentence that offers packing of a folder, if it is large.

    Args:
        place: The folder, or its address.
        images: The number of its images.
    """
    if images <= _LARGE:
        return ()
    place = place.rstrip("/")
    command = f"transfer-jax pack {shlex.quote(place)} {shlex.quote(f'{place}-packed')}"
    return (f"{images:,} files are read faster as records: {command}",)


def shard_name(number: int, count: int) -> str:
    """Returns the name of a shard."""
    return f"images-{number:05d}-of-{count:05d}.array_record"


def columns_name(shard: str) -> str:
    """Returns the name of the file with labels and names of a shard."""
    return shard.removesuffix(".array_record") + ".npz"


def from_records(
    path: str | os.PathLike[str],
    *,
    task: str = "auto",
    cache: ObjectCache | None = None,
    progress: IndexProgress | None = None,
) -> ImageDataset:
    """Opens images that `transfer-jax pack` has written, local or in object storage.

    Args:
        path: The folder, or its address.
        task: That of the packed images, or `auto`; `single_label` and `ordinal` may replace each other.
        cache: The cache of images from object storage; None takes the default one.
        progress: Receives the progress of the index.

    Raises:
        ValueError: If the folder is missing, incomplete or of another version, or a shard is truncated.
        StorageError: If object storage is not readable.
    """
    folder = os.fspath(path).rstrip("/")
    folder = folder if is_remote(folder) else os.path.abspath(os.path.expanduser(folder))
    facts = _facts_of(folder)
    kind = facts["task"] if task == "auto" else task
    if {kind, facts["task"]} - {"single_label", "ordinal"} and kind != facts["task"]:
        raise ValueError(f"{folder!r} has targets of the task {facts['task']}, not {task}")
    stored = {each.place.rpartition("/")[2]: each for each in shard_files(folder, (".array_record", ".npz"))}
    names = [shard_name(number, facts["shards"]) for number in range(facts["shards"])]
    wanted = [name for shard in names for name in (shard, columns_name(shard))]
    if missing := [name for name in wanted if name not in stored]:
        raise ValueError(f"{folder!r} is incomplete: {missing[0]} is missing; pack the images again")
    parts = [[*_values(stored[name]), _values(stored[columns_name(name)])] for name in names]
    index = build_index(
        *(_KIND, {"fingerprint": facts["fingerprint"]}, parts, _part),
        *(index_place(folder, _KIND), progress),
        finish=functools.partial(_finish, facts=facts),
        total=facts["images"],
    )
    read_many = RangeContents(
        index, in_shard, RangeReader(ObjectCache() if cache is None else cache), _record
    )
    part = index.column("part")
    weights = index.get("weights")
    return ImageDataset(
        read=ReadOne(read_many),
        read_many=read_many,
        labels=index.column("labels"),
        names=index.texts("names"),
        class_names=tuple(facts["classes"]),
        task=make_task(kind, facts["classes"]),
        fingerprint=index.fingerprint,
        sizes=index.column("size"),
        weights=weights,
        groups=np.array([*index.texts("groups")], np.str_) if "groups" in index.text_names else None,
        held_out=part == 1 if facts["validation"] else None,
        test=part == 2 if facts["test"] else None,
        notes=tuple(facts["notes"]),
    )


def _values(stored: StoredObject) -> list[Any]:
    return [stored.place, stored.size, stored.tag]


def _facts_of(folder: str) -> dict[str, Any]:
    """Returns the content of `dataset.json`."""
    names = {each.place.rpartition("/")[2]: each for each in _json_files(folder)}
    if DATASET not in names:
        unfinished = ": packing is not finished; run the same command again" if PLAN in names else ""
        raise ValueError(f"{folder!r} has no {DATASET}, which `transfer-jax pack` writes last{unfinished}")
    stored = names[DATASET]
    (content,) = RangeReader().read([ByteRange(stored.place, 0, stored.size, stored.size, stored.tag)])
    try:
        facts = json.loads(content)
        version = facts["version"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder}/{DATASET} is damaged; pack the images again") from error
    if version != VERSION:
        raise ValueError(
            f"{folder!r} has records of version {version}, and this package reads version {VERSION}; "
            "pack the images again"
        )
    return facts


def _json_files(folder: str) -> list[StoredObject]:
    try:
        return shard_files(folder, (".json",))
    except ValueError:
        if not is_remote(folder) and not os.path.isdir(folder):
            raise ValueError(f"the folder {folder!r} does not exist") from None
        return []


def _finish(joined: Joined, facts: dict[str, Any]) -> tuple[dict, dict]:
    if joined.count != facts["images"]:
        raise ValueError(
            f"the shards have {joined.count:,} images, and {DATASET} says {facts['images']:,}; "
            "pack the images again"
        )
    return {"fingerprint": facts["fingerprint"]}, {}


def _part(part: tuple[str, int, str, tuple[str, int, str]]) -> PartIndex:
    """Returns the records of a shard."""
    place, size, tag, other = part
    reader = RangeReader()

    def read(start: int, stop: int) -> bytes:
        return reader.read([ByteRange(place, start, stop, size, tag)])[0]

    try:
        offsets, counts = read_footer(read, size)
    except DamagedRecordsError as error:
        raise ValueError(f"{place} is truncated or damaged: {error}; copy it again") from error
    (content,) = reader.read([ByteRange(other[0], 0, other[1], other[1], other[2])])
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        columns = {name: arrays[name] for name in arrays.files}
    if not (len(columns["labels"]) == len(counts) == counts.sum()):
        raise ValueError(f"{place} has {counts.sum():,} records, and {len(columns['labels']):,} labels")
    texts = {
        name: TextColumn(columns.pop(f"{name} bytes"), columns.pop(f"{name} offsets"))
        for name in ("names", "groups")
        if f"{name} bytes" in columns
    }
    return PartIndex({**columns, "offset": offsets[:-1], "length": np.diff(offsets)}, texts)


def _record(content: bytes, index: DatasetIndex, position: int) -> Content | BadImageError:
    return chunk_records(content, int(index.column("offset")[position]))[0]
