"""Tables of paths and labels in object storage. The table is copied, its images are read on demand."""

import hashlib
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from transfer_jax.data.dataset import ImageDataset
from transfer_jax.data.image_paths import FoundFile, ImagePaths
from transfer_jax.data.image_table import from_csv
from transfer_jax.data.index import (
    DatasetIndex,
    IndexProgress,
    PartIndex,
    build_index,
    index_place,
)
from transfer_jax.data.index.join import Joined
from transfer_jax.data.remote.folder_listing import FolderListing
from transfer_jax.data.remote.listed_index import keep_place, list_again, listed_before
from transfer_jax.data.remote.range_contents import RangeContents, ReadOne
from transfer_jax.storage.byte_ranges import ByteRange
from transfer_jax.storage.object_cache import ObjectCache
from transfer_jax.storage.object_listing import StoredObject, shard_files
from transfer_jax.storage.range_reads import RangeReader
from transfer_jax.tasks import make_task

_KIND = "bucket table 1"


class ObjectPaths(ImagePaths):
    """Finds objects by the paths in a table, as `ImagePaths` finds files; full addresses are accepted too.

    Args:
        folder: The address of the folder of the table.
        objects: All objects below it.
    """

    def __init__(self, folder: str, objects: Sequence[StoredObject]) -> None:
        super().__init__(folder)
        self._objects = {each.place: each for each in objects}
        self._names: dict[str, set[str]] = {}
        for place in self._objects:
            inner = place
            while len(inner) > len(folder):
                inner, _, name = inner.rpartition("/")
                names = self._names.setdefault(inner, set())
                if name in names:
                    break
                names.add(name)
        self.found: dict[str, StoredObject] = {}

    def find(self, written: str) -> FoundFile | None:
        """Returns the object of a written path, or None if there is none."""
        path = written if "://" in written else self._start + written
        name = path.removeprefix(self._start)
        if path not in self._objects:
            parts = [part for part in written.replace("\\", "/").split("/") if part not in ("", ".")]
            searched = None if "://" in written else self._search(parts, written)
            if searched is None:
                return None
            path, kinds = searched
            name = path.removeprefix(self._start)
            for kind in kinds:
                count, *first = self.changes.get(kind, (0, written, name))
                self.changes[kind] = cast(Any, (count + 1, *first))
        stored = self._objects.get(path)
        if stored is None:
            return None
        self.found[name] = stored
        status = os.stat_result((0o100644, 0, 0, 1, 0, 0, stored.size, 0, 0, 0))
        return FoundFile(path, name, status)

    def explanation(self, written: str) -> str:
        """Returns advice for a path that leads to no object."""
        return f"paths are relative to the folder of the table, {self._base}, or full addresses in it"

    def _subfolders_with(self, parts: list[str], folder: str | None = None) -> list[str]:
        start = folder or self._base
        inner = [f"{start}/{name}" for name in sorted(self._names.get(start, ())) if not name.startswith(".")]
        return [path for path in inner if path in self._names and self._walk(path, parts)]

    def _names_in(self, folder: str) -> Sequence[str]:
        return [*self._names.get(folder, ())]


def from_bucket_table(
    address: str,
    *,
    cache: ObjectCache | None = None,
    progress: IndexProgress | None = None,
    **options: Any,
) -> ImageDataset:
    """Reads a table in object storage, as `from_csv` does.

    The folder of the table is listed once, into an index beside it, which all starts with the same table use.
    An image is downloaded when it is needed, and kept in a local cache of bounded size.

    Args:
        address: `gs://BUCKET/FOLDER/TABLE.csv` or `s3://…`. The images are in the folder of the table.
        cache: The cache of images; None takes the default one.
        progress: Receives the progress of the listing.
        **options: Those of `from_csv`.

    Raises:
        ValueError: As `from_csv`.
        StorageError: If the table or its folder is not readable.
    """
    (table,) = shard_files(address, ("",))
    folder = table.place.rpartition("/")[0]
    key = {"table": [table.place, table.size, table.tag], "options": options}
    place = index_place(folder, f"{_KIND} {table.place} {options}")
    index = listed_before(place, _KIND, key)
    if index is None:
        objects = FolderListing(folder, progress)
        part = _listed(table, folder, objects.objects, options)
        listing = hashlib.sha256("\0".join(part.texts["tags"]).encode()).hexdigest()
        part_of = {"": part}
        index = build_index(
            *(_KIND, {**key, "listing": listing}, [""], part_of.__getitem__, place, progress), finish=_facts
        )
        keep_place(place, index)
        objects.forget()
    remedy = list_again(place, folder)
    reader = RangeReader(ObjectCache() if cache is None else cache)
    read_many = RangeContents(index, _object, reader, advice=remedy)
    about, parts = index.about, index.column("part")
    return ImageDataset(
        read=ReadOne(read_many),
        read_many=read_many,
        labels=index.column("labels"),
        names=index.texts("names"),
        class_names=tuple(about["classes"]),
        task=make_task(about["task"], about["classes"]),
        fingerprint=index.fingerprint,
        sizes=index.column("length"),
        groups=np.array([*index.texts("groups")], np.str_) if about["groups"] else None,
        held_out=parts == 1 if about["validation"] else None,
        test=parts == 2 if about["test"] else None,
        notes=(*about["notes"], f"images listed on {about['date']}"),
    )


def _listed(
    table: StoredObject, folder: str, objects: Sequence[StoredObject], options: dict[str, Any]
) -> PartIndex:
    """Returns the images of a table."""
    finder = ObjectPaths(folder, objects)
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / table.place.rpartition("/")[2]
        copy.write_bytes(
            RangeReader().read([ByteRange(table.place, 0, table.size, table.size, table.tag)])[0]
        )
        try:
            dataset = from_csv(copy, finder=finder, **options)
        except (ValueError, FileNotFoundError) as error:
            raise type(error)(str(error).replace(str(copy), table.place)) from None
    chosen = [finder.found[name] for name in dataset.names]
    part = np.zeros(len(dataset), np.int8)
    for number, mask in ((1, dataset.held_out), (2, dataset.test)):
        if mask is not None:
            part[mask] = number
    about = {
        "classes": dataset.class_names,
        "task": dataset.task.kind,
        "groups": dataset.groups is not None,
        "validation": dataset.held_out is not None,
        "test": dataset.test is not None,
        "notes": [note.replace(str(copy), table.place) for note in dataset.notes],
        "date": time.strftime("%Y-%m-%d %H:%M"),
    }
    texts = {
        "names": [*dataset.names],
        "places": [each.place for each in chosen],
        "tags": [each.tag for each in chosen],
        "groups": [""] * len(dataset) if dataset.groups is None else dataset.groups.tolist(),
    }
    length = np.array([each.size for each in chosen], np.int64)
    return PartIndex({"labels": dataset.labels, "length": length, "part": part}, texts, about)


def _facts(joined: Joined) -> tuple[dict, dict]:
    digest = hashlib.sha256(np.ascontiguousarray(joined.column("labels")).tobytes())
    for texts in ("names", "tags"):
        content, lengths = joined.texts(texts).arrays()
        digest.update(np.ascontiguousarray(content).data)
        digest.update(lengths.astype("<i8").data)
    return {**joined.abouts[0], "fingerprint": digest.hexdigest()}, {}


def _object(index: DatasetIndex, position: int) -> ByteRange:
    size = int(index.column("length")[position])
    return ByteRange(index.texts("places")[position], 0, size, size, index.texts("tags")[position])
