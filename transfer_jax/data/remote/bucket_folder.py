"""Folders with one subfolder for each class in object storage. Images are read when they are needed."""

import functools
import hashlib
import os
import time
from collections.abc import Sequence

import numpy as np

from transfer_jax.data.dataset import ImageDataset
from transfer_jax.data.image_folder import FolderImages, read_folder
from transfer_jax.data.index import (
    INDEX_FOLDER,
    DatasetIndex,
    IndexProgress,
    PartIndex,
    build_index,
    index_place,
)
from transfer_jax.data.index.join import Joined
from transfer_jax.data.remote.folder_listing import FolderListing
from transfer_jax.data.remote.listed_index import keep_place, list_again, listed_before
from transfer_jax.data.remote.object_tree import object_tree
from transfer_jax.data.remote.packed_records import packing_notes
from transfer_jax.data.remote.range_contents import RangeContents, ReadOne
from transfer_jax.storage.byte_ranges import ByteRange
from transfer_jax.storage.object_cache import ObjectCache
from transfer_jax.storage.object_listing import StoredObject
from transfer_jax.storage.range_reads import RangeReader
from transfer_jax.storage.remote import protocol_and_path
from transfer_jax.tasks import make_task

_KIND = "bucket folder 1"
_PARTS = ("training", "validation", "test")


def from_bucket_folder(
    address: str | os.PathLike[str],
    *,
    least_classes: int = 2,
    task: str = "auto",
    cache: ObjectCache | None = None,
    progress: IndexProgress | None = None,
) -> ImageDataset:
    """Reads a folder in object storage, with one subfolder for each class, as `from_folder` does.

    The folder is listed once, into an index beside the images, which all later starts use without listing
    again. An image is downloaded when it is needed, with 64 requests at a time, and kept in a local cache of
    bounded size. An image that is not the one of the listing is an error.

    Args:
        address: `gs://BUCKET/FOLDER` or `s3://BUCKET/FOLDER`.
        least_classes: As for `from_folder`.
        task: As for `from_folder`.
        cache: The cache of images; None takes the default one.
        progress: Receives the progress of the listing.

    Raises:
        ValueError: As `from_folder`.
        StorageError: If the folder is missing or not readable.
    """
    kind, path = protocol_and_path(address)
    address = f"{kind}://{path}"
    place = index_place(address, f"{_KIND} {task}")
    key = {"folder": address, "task": task}
    index = listed_before(place, _KIND, key)
    if index is None:
        listing = FolderListing(address, progress)
        key["listing"] = _hash_of(listing.objects)
        read = functools.partial(_images, listing.objects, task)
        index = build_index(_KIND, key, [address], read, place, progress, finish=_facts)
        keep_place(place, index)
        listing.forget()
    names = tuple(index.about["classes"])
    if len(names) < least_classes:
        raise ValueError(f"{address!r} has only the class folder {names[0]!r}; two or more are needed")
    remedy = list_again(place, address)
    reader = RangeReader(ObjectCache() if cache is None else cache)
    read_many = RangeContents(index, _whole_object, reader, advice=remedy)
    part = index.column("part")
    notes = [*index.about["notes"], f"listed on {index.about['date']}; if images were added, {remedy}"]
    notes += packing_notes(address, len(index))
    return ImageDataset(
        read=ReadOne(read_many),
        read_many=read_many,
        labels=index.column("labels"),
        names=index.texts("names"),
        class_names=names,
        task=make_task("single_label" if task == "auto" else task, names),
        fingerprint=index.fingerprint,
        sizes=index.column("length"),
        held_out=part == 1 if np.any(part == 1) else None,
        test=part == 2 if np.any(part == 2) else None,
        notes=tuple(notes),
    )


def _hash_of(objects: Sequence[StoredObject]) -> str:
    digest = hashlib.sha256()
    for each in objects:
        digest.update(f"{each.place}\0{each.size}\0{each.tag}\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _images(objects: Sequence[StoredObject], task: str, address: str) -> PartIndex:
    """Returns the images among the objects below an address."""
    found: FolderImages = read_folder(object_tree(address, objects, INDEX_FOLDER), least_classes=1, task=task)
    chosen = [objects[place] for _, place in found.stamps]
    return PartIndex(
        columns={
            "labels": np.array(found.labels, np.int32),
            "length": np.array([each.size for each in chosen], np.int64),
            "part": np.array([_PARTS.index(part) for part in found.parts], np.int8),
        },
        texts={"names": found.names, "tags": [each.tag for each in chosen]},
        about={"classes": found.class_names, "notes": found.notes, "date": time.strftime("%Y-%m-%d %H:%M")},
    )


def _facts(joined: Joined) -> tuple[dict, dict]:
    """Returns facts of all images; the fingerprint does not depend on the address of the folder."""
    digest = hashlib.sha256()
    for texts in ("names", "tags"):
        content, lengths = joined.texts(texts).arrays()
        digest.update(np.ascontiguousarray(content).data)
        digest.update(lengths.astype("<i8").data)
    for name in ("labels", "part"):
        digest.update(np.ascontiguousarray(joined.column(name)).data)
    return {**joined.abouts[0], "fingerprint": digest.hexdigest()}, {}


def _whole_object(index: DatasetIndex, position: int) -> ByteRange:
    size = int(index.column("length")[position])
    address = index.key["folder"]
    return ByteRange(
        f"{address}/{index.texts('names')[position]}", 0, size, size, index.texts("tags")[position]
    )
