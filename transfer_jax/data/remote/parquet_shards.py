"""Parquet files of images as Hugging Face datasets writes them, local or in object storage.

An image is in a row group, which is read as a whole: its images go into the local cache, so that each row
group is read once while they fit into it.
"""

import collections
import functools
import json
import math
import os
import shlex
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from transfer_jax.counted import counted
from transfer_jax.data.contents import Content, NumberedNames
from transfer_jax.data.dataset import ImageDataset
from transfer_jax.data.decode import BadImageError
from transfer_jax.data.image_files import abridged
from transfer_jax.data.index import DatasetIndex, IndexProgress, PartIndex, build_index, index_place
from transfer_jax.data.index.join import Joined
from transfer_jax.data.order import BLOCK, WINDOW
from transfer_jax.data.remote.range_contents import shard_of
from transfer_jax.data.remote.shard_labels import common_folder, label_columns, shard_dataset
from transfer_jax.storage.byte_ranges import ByteRange, StorageError
from transfer_jax.storage.object_cache import ObjectCache
from transfer_jax.storage.object_listing import StoredObject, shard_files
from transfer_jax.storage.range_file import RangeFile
from transfer_jax.storage.range_reads import RangeReader
from transfer_jax.storage.remote import is_remote

_KIND = "parquet shards 1"
_ENDINGS = (".parquet",)
_GROUPS = 4
"""Row groups whose images are in memory."""
_WINDOW = 1 << 22
"""Bytes that are read at once from an object."""


def from_parquet_shards(
    pattern: str | os.PathLike[str],
    *,
    label: str | None = None,
    image: str | None = None,
    classes: Sequence[str] | None = None,
    task: str = "auto",
    cache: ObjectCache | None = None,
    progress: IndexProgress | None = None,
) -> ImageDataset:
    """Reads Parquet files with a column of images and a column of labels.

    Images are encoded files: the values of a column of Hugging Face (a struct with `bytes`), or bytes. The
    names of the classes come from the metadata of Hugging Face. Labels are read once, into an index beside
    the files. Images are read by row groups; those of a row group are kept in a local cache of bounded size,
    also for local files. Files that are named `validation` or `test` beside others are validation and test
    images.

    Args:
        pattern: A folder with `.parquet` files, or with a folder `data` of them; or names with `{000..127}`,
            `{a,b}`, `*` and `?`.
        label: Column of the labels; None takes the only class label, or `label`.
        image: Column of the images; None takes the only column of images.
        classes: The classes, if labels are their names or positions; None takes those of the metadata, or the
            labels that occur.
        task: `single_label` or `ordinal`; `auto` is `single_label`.
        cache: The cache of images; None takes the default one.
        progress: Receives the progress of the index.

    Raises:
        ImportError: If pyarrow is not installed.
        ValueError: If there are no files, one is truncated, columns are missing, or labels are not among the
            classes.
        StorageError: If object storage is not readable.
    """
    shards = _files(os.fspath(pattern))
    columns = _columns(shards[0], image, label)
    names = columns["classes"] if classes is None else [*classes]
    key = {**columns, "classes": names}
    read = functools.partial(_part, image=columns["image"], label=columns["label"])
    folder = common_folder(shards)
    index = build_index(
        *(_KIND, key, [[each.place, each.size, each.tag] for each in shards], read),
        *(index_place(folder, f"{_KIND} {pattern} {key}"), progress),
        finish=functools.partial(_facts, classes=names, place=os.fspath(pattern)),
    )
    read_many = RowGroupImages(index, ObjectCache() if cache is None else cache)
    title = f"{folder.rpartition('/')[2]} "
    notes = _cache_notes(index, read_many.cache_bytes, os.fspath(pattern))
    return shard_dataset(index, read_many, NumberedNames(title, len(index)), task, notes)


def _files(pattern: str) -> list[StoredObject]:
    try:
        return shard_files(pattern, _ENDINGS)
    except ValueError:
        if pattern.lower().endswith(_ENDINGS):
            raise
        try:
            return shard_files(f"{pattern.rstrip('/')}/data", _ENDINGS)
        except ValueError:
            pass
        raise


def _facts(joined: Joined, classes: Sequence[str] | None, place: str) -> tuple[dict, dict]:
    about, columns = label_columns(joined, classes, place)
    return dict(about), columns


def _cache_notes(index: DatasetIndex, limit: int, pattern: str) -> list[str]:
    """Returns a sentence about files that do not fit into the cache, with the sizes to choose."""
    sizes = np.array([size for _, size, _ in index.parts], np.float64)
    if (total := sizes.sum()) <= limit:
        return []
    groups, counts = index.column("group"), index.part_counts
    starts = np.flatnonzero(np.diff(groups, prepend=-1) | np.isin(np.arange(len(groups)), index.part_starts))
    rows = int(np.diff(starts, append=len(groups)).max(initial=0))
    image = (sizes / np.maximum(counts, 1)).max()
    # `order="blocks"` reads a window of images, of which the row groups at the ends are read whole.
    blocks = (WINDOW * BLOCK + 2 * WINDOW * rows) * image
    choices = [f"set --object-gigabytes {_rounded(total)}"]
    if blocks < total:
        choices.append(f"set --order blocks and --object-gigabytes {_rounded(blocks)} or more")
    choices.append(f"pack them: transfer-jax pack {shlex.quote(f'parquet:{pattern}')} OUT")
    return [
        f"{total / 1e9:.3g} GB of Parquet files do not fit into the cache of {limit / 1e9:.3g} GB; in a "
        f"random order, most images are read with a row group of up to {counted(rows, 'image')}: "
        f"{', or '.join(choices)}"
    ]


def _rounded(size: float) -> str:
    """Returns a size in units of 10^9 bytes, rounded up to two digits."""
    gigabytes = size / 1e9
    digits = 1 - math.floor(math.log10(gigabytes))
    return f"{math.ceil(gigabytes * 10**digits) / 10**digits:.{max(digits, 0)}f}"


def _opened(stored: StoredObject) -> Any:
    """Returns a `pyarrow.parquet.ParquetFile`.

    Raises:
        ImportError: If pyarrow is not installed.
        ValueError: If the file is truncated or no Parquet file.
    """
    try:
        import pyarrow.parquet
    except ImportError:
        raise ImportError("Parquet files need pyarrow: pip install 'transfer_jax[remote]'") from None
    file = RangeFile(stored, RangeReader(), _WINDOW if is_remote(stored.place) else 1 << 16)
    try:
        return pyarrow.parquet.ParquetFile(file)
    except (pyarrow.ArrowException, OSError) as error:
        text = str(error).splitlines()[0]
        raise ValueError(f"{stored.place} is truncated or no Parquet file ({text}); copy it again") from error


def _columns(stored: StoredObject, image: str | None, label: str | None) -> dict[str, Any]:
    """Returns the columns of images and labels, and the classes of the metadata or None."""
    schema = _opened(stored).schema_arrow
    metadata = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    features = metadata.get("info", {}).get("features", {})
    kinds = {name: each.get("_type") for name, each in features.items() if isinstance(each, dict)}
    images = [name for name in schema.names if kinds.get(name) == "Image" or _holds_bytes(schema.field(name))]
    labels = [name for name in schema.names if kinds.get(name) == "ClassLabel"]
    likely = (
        labels or [name for name in ("label", "labels", "cls", "class", "target") if name in schema.names][:1]
    )
    chosen = {
        "image": _chosen(stored, "image", image, images, schema.names),
        "label": _chosen(stored, "label", label, likely, schema.names),
    }
    return {**chosen, "classes": features.get(chosen["label"], {}).get("names")}


def _holds_bytes(field: Any) -> bool:
    import pyarrow

    kind = field.type
    if pyarrow.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0
    return pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind)


def _chosen(
    stored: StoredObject, kind: str, wanted: str | None, likely: Sequence[str], names: Sequence[str]
) -> str:
    if wanted is not None and wanted not in names:
        raise ValueError(f"{stored.place} has no column {wanted!r}; its columns are {abridged(names, 20)}")
    if wanted is None and len(likely) != 1:
        found = f"several columns of {kind}s, {abridged(likely)}" if likely else f"no column of {kind}s"
        raise ValueError(
            f"{stored.place} has {found}; choose one of {abridged(names, 20)} with ?{kind}=COLUMN"
        )
    return wanted or likely[0]


def _part(part: tuple[str, int, str], image: str, label: str) -> PartIndex:
    """Returns the labels and row groups of a file."""
    stored = StoredObject(*part)
    file = _opened(stored)
    missing = [name for name in (image, label) if name not in file.schema_arrow.names]
    if missing:
        raise ValueError(f"{stored.place} has no column {missing[0]!r}, which other files have")
    values = file.read(columns=[label]).column(label).to_pylist()
    if None in values:
        raise ValueError(f"{stored.place} has {counted(values.count(None), 'row')} without a label")
    rows = [file.metadata.row_group(group).num_rows for group in range(file.metadata.num_row_groups)]
    return PartIndex(
        columns={
            "group": np.repeat(np.arange(len(rows), dtype=np.int32), rows),
            "row": np.concatenate(
                [np.arange(count, dtype=np.int32) for count in rows] or [np.zeros(0, np.int32)]
            ),
        },
        texts={"label": [each if isinstance(each, str) else str(int(each)) for each in values]},
    )


class RowGroupImages:
    """A `ReadMany` of the images of row groups.

    Args:
        index: The index of the files.
        cache: Receives the images of each row group that is read.
    """

    def __init__(self, index: DatasetIndex, cache: ObjectCache) -> None:
        self.index, self.cache = index, cache
        self._prepare()

    def _prepare(self) -> None:
        self._lock = threading.Lock()
        self._groups: collections.OrderedDict[tuple[int, int], list[Any]] = collections.OrderedDict()
        self._locks: dict[tuple[int, int], threading.Lock] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"index": self.index, "cache": self.cache}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._prepare()

    def __call__(self, positions: Sequence[int]) -> list[Content | BadImageError | OSError]:
        groups, rows = self.index.column("group"), self.index.column("row")
        found: list[Any] = [None] * len(positions)
        missing: dict[tuple[int, int], list[int]] = {}
        for place, position in enumerate(positions):
            shard = shard_of(self.index, position)
            group, row = int(groups[position]), int(rows[position])
            found[place] = self.cache.find(self._key(shard, group, row))
            if found[place] is None:
                missing.setdefault((shard, group), []).append(place)
        for (shard, group), places in missing.items():
            images = self._images(shard, group)
            for place in places:
                found[place] = images[int(rows[positions[place]])]
        return found

    @property
    def cache_bytes(self) -> int:
        """The largest size of the cache, in bytes."""
        return self.cache.limit

    def requests(self, positions: Sequence[int]) -> list[ByteRange]:
        """Returns the requests to object storage that a call sends if the cache is empty.

        The index has the rows of a row group, not its bytes: they are estimated from those of the file.
        """
        groups, rows, counts = self.index.column("group"), self.index.column("row"), self.index.part_counts
        ends = np.cumsum(counts)
        found: dict[ByteRange, None] = {}
        for position in positions:
            shard = shard_of(self.index, position)
            place, size, tag = self.index.parts[shard]
            if not is_remote(place):
                continue
            first, last = position - int(rows[position]), int(ends[shard])
            same = np.flatnonzero(groups[first:last] != groups[position])
            after, begin = first + int(same[0]) if len(same) else last, last - int(counts[shard])
            at, stop = (size * (row - begin) // int(counts[shard]) for row in (first, after))
            for each in range(at, stop, _WINDOW):
                found[ByteRange(place, each, min(each + _WINDOW, stop), size, tag)] = None
        return [*found]

    def _key(self, shard: int, group: int, row: int) -> str:
        place, size, tag = self.index.parts[shard]
        return f"{place} {size} {tag} {self.index.key['image']} row group {group} row {row}"

    def _images(self, shard: int, group: int) -> list[Any]:
        """Returns the images of a row group, which other threads wait for, and puts them into the cache."""
        own = (shard, group)
        with self._locks.setdefault(own, threading.Lock()):
            with self._lock:
                if own in self._groups:
                    self._groups.move_to_end(own)
                    return self._groups[own]
            images = self._read(shard, group)
            for row, image in enumerate(images):
                if isinstance(image, bytes):
                    self.cache.put(self._key(shard, group, row), image)
            with self._lock:
                self._groups[own] = images
                while len(self._groups) > _GROUPS:
                    self._locks.pop(self._groups.popitem(last=False)[0], None)
            return images

    def _read(self, shard: int, group: int) -> list[Any]:
        place, size, tag = self.index.parts[shard]
        column = self.index.key["image"]
        try:
            table = _opened(StoredObject(place, size, tag)).read_row_group(group, columns=[column])
        except StorageError:
            raise
        except (OSError, ValueError) as error:
            raise StorageError(f"row group {group} of {place} is damaged: {error}") from error
        return [self._image(value, place) for value in table.column(column).to_pylist()]

    def _image(self, value: Any, place: str) -> Any:
        """Returns the encoded image of a value, or its error."""
        content = value.get("bytes") if isinstance(value, dict) else value
        if content is not None:
            return content
        path = value.get("path") if isinstance(value, dict) else None
        if not path or is_remote(place):
            return BadImageError(f"a row of {place} has no image, only the path {path!r}")
        try:
            with open(os.path.join(os.path.dirname(place), path), "rb") as file:
                return file.read()
        except OSError as error:
            return error
