"""Indexes of large sources: labels and other columns of all examples, made once and memory-mapped.

An index is a folder that is made once and then memory-mapped: labels, and whatever else a source needs for
each of its examples, such as weights, sizes, names, or the offset of an image in a shard. Indexes of record
files, folders, tables, tar shards, Parquet files and buckets are the same:

- `build_index` returns the index of a source. It makes the index if it is missing, of another version or
  truncated, or if the source is not what it was. A line says so.
- A source is described by a `key` and by its `parts`, such as shards, subfolders, or ranges of rows. They are
  what the source says of itself at every start, cheaply. The key has what all columns depend on, such as
  options and a list of classes. A part is a JSON value which describes it completely, such as its name, size
  and time or etag. Equal keys and parts promise the same examples.
- A function reads one part and returns a `PartIndex`, its columns. Threads read parts in parallel; so do all
  processes of a run, each its own, if they share the place of the index. Each finished group of parts is kept
  on disk, so that the work continues where it was killed. Parts of an earlier index with the same key whose
  descriptions are unchanged are taken from it.
- `index_place` is beside the data, in a hidden folder, also in a bucket; or in the user's cache, if that
  place is not writable.

Files of an index (`INDEX_FOLDER/NAME/`):

- `index.json`: version, kind, key, count, the parts with the number of examples of each, the columns, the
  texts, `about` (further facts of the source, such as its task as JSON), a fingerprint, and the size of
  each file. It is written last, and declares the others complete.
- `CONTENTS/COLUMN.npy`: a column `(count, …)`.
- `CONTENTS/TEXTS.bytes.npy`, `CONTENTS/TEXTS.offsets.npy`: strings as UTF-8, uint8, and where each begins,
  `(count + 1,)`.
- `parts/HASH.npz`: finished groups of parts of an index that is being made.

Example: an index of tar shards.

    >>> class ReadShard:  # A function, or an object of a class that can be pickled.
    ...     def __call__(self, part):
    ...         name, size, etag = part
    ...         members = list_members(name, etag)
    ...         return PartIndex(
    ...             columns={
    ...                 "labels": np.array([each.label for each in members], np.int32),
    ...                 "offset": np.array([each.offset for each in members], np.int64),
    ...             },
    ...             texts={"names": [each.name for each in members]},
    ...         )
    >>> parts = [[shard.name, shard.size, shard.etag] for shard in shards]
    >>> index = build_index("tar", {"classes": classes}, parts, ReadShard(), index_place(folder, "tar train"))
    >>> index.column("labels"), index.texts("names"), index.about, index.fingerprint
"""

from transfer_jax.data.index.build import IndexProgress, build_index
from transfer_jax.data.index.dataset_index import (
    VERSION,
    DatasetIndex,
    IndexInvalidError,
    open_index,
    read_index,
)
from transfer_jax.data.index.part import PartIndex
from transfer_jax.data.index.place import INDEX_FOLDER, IndexPlace, index_place
from transfer_jax.data.index.texts import TextColumn

__all__ = [
    "INDEX_FOLDER",
    "VERSION",
    "DatasetIndex",
    "IndexInvalidError",
    "IndexPlace",
    "IndexProgress",
    "PartIndex",
    "TextColumn",
    "build_index",
    "index_place",
    "open_index",
    "read_index",
]
