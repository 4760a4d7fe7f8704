"""A cache of features on disk, read memory-mapped or from memory."""

import operator
import os
from collections.abc import Iterable, Sequence
from typing import Any, SupportsIndex

import jax
import numpy as np

from transfer_jax.features.bucket_shards import BucketShards
from transfer_jax.features.cache_files import BucketFiles, open_files
from transfer_jax.features.manifest import CorruptFeaturesError, FeatureKey, Manifest
from transfer_jax.features.row_format import relative_error
from transfer_jax.storage.remote import display_path, local_path


class FeatureCache:
    """A complete cache of features: a sequence of examples. It is memory-mapped until `read` is called.

    Loaders of data take it as their source, such as `grain.MapDataset.source(cache)`. Processes that receive
    a copy map the same files.

    Example:
        >>> cache = FeatureCache("features/0123456789abcdef0123")
        >>> example = cache[0]  # arrays by name
        >>> batch = cache.gather(np.arange(32))  # with the examples on axis 0

    Args:
        directory: A folder that `cache_features` or `write_shards` wrote.
        check: True reads every file and compares its checksum.

    Raises:
        FileNotFoundError: If there is no manifest.
        CorruptFeaturesError: If the cache is incomplete, or a file is missing or damaged. The message
            names the file.
    """

    def __init__(self, directory: str | os.PathLike[str], *, check: bool = True) -> None:
        directory = local_path(directory)
        manifest, files = Manifest.read(directory), open_files(directory)
        if not manifest.complete():
            raise CorruptFeaturesError(
                f"{display_path(directory)} is incomplete: the extraction was interrupted"
            )
        for path in manifest.damaged(directory) if check else []:
            raise CorruptFeaturesError(f"{display_path(path)} does not match its checksum")
        self.directory = directory
        self.manifest = manifest
        self._row_format = manifest.row_format
        self._bucket = BucketShards(files, manifest) if isinstance(files, BucketFiles) else None
        self._shards = [self._load(name) for name in manifest.shards()] if self._bucket is None else None

    def _load(self, name: str) -> np.ndarray:
        # Still mapped, but without the slower indexing of `np.memmap`.
        return np.asarray(np.load(self.directory / name, mmap_mode="r"))

    @property
    def is_remote(self) -> bool:
        """True if the features are in object storage, and not in memory."""
        return self._shards is None

    def prefetch(self, shards: Iterable[int]) -> None:
        """Begins to download shards from object storage in the background; does nothing for local ones.

        Args:
            shards: Indices of shards.
        """
        if self._shards is None and self._bucket is not None:
            self._bucket.prefetch(shards)

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (display_path(self.directory),)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.directory)!r}: {len(self)} examples of {self.arrays})"

    @property
    def arrays(self) -> dict[str, jax.ShapeDtypeStruct]:
        """The shape and the dtype of each array of an example, by name."""
        return {
            name: jax.ShapeDtypeStruct(array.shape, array.decoded)
            for name, array in self._row_format.arrays.items()
        }

    @property
    def boundary(self) -> str:
        """The block whose activations the features are, or the names of several arrays."""
        return FeatureKey.from_json(self.manifest.key).boundary

    @property
    def error(self) -> float:
        """The root mean square error of the stored features, as a fraction of their root mean square."""
        return relative_error(list(self.manifest.errors.values()))

    def __len__(self) -> int:
        return self.manifest.rows

    def __getitem__(self, index: SupportsIndex) -> dict[str, np.ndarray]:
        """Returns the arrays of one example by name. Negative indices count from the end.

        Raises:
            IndexError: If the index is out of range.
            TypeError: If the index is not an integer, such as a slice; see `gather`.
        """
        try:
            number = operator.index(index)
        except TypeError:
            raise TypeError(
                f"an index must be an integer, got {index!r}; `gather` returns several examples"
            ) from None
        if not -len(self) <= number < len(self):
            raise IndexError(f"index {number} is out of range for {len(self)} examples")
        row = jax.tree.map(np.array, self.columns([number % len(self)]))
        return {name: array[0] for name, array in self._row_format.decode(row).items()}

    def read(self) -> None:
        """Reads all features into memory and keeps them there."""
        if self._shards is None and self._bucket is not None:
            self._shards = self._bucket.whole(range(self.manifest.shard_count))
            return
        shards = self._shards or []
        for number, shard in enumerate(shards):  # One file is mapped and in memory at a time.
            shards[number] = np.array(shard)

    def gather(self, rows: Sequence[int] | np.ndarray) -> dict[str, np.ndarray]:
        """Returns some examples.

        Args:
            rows: int `(n,)`, positions of the examples, from 0.

        Returns:
            The arrays by name, each `(n, *shape)`, with the dtypes in `arrays`.

        Raises:
            IndexError: If a position is out of range.
        """
        return self._row_format.decode(self.columns(rows))

    def columns(self, rows: Sequence[int] | np.ndarray) -> dict[str, Any]:
        """Returns some rows as they are stored; see `RowFormat.columns`.

        Args:
            rows: int `(n,)`, positions of the rows, from 0.

        Raises:
            IndexError: If a position is out of range.
        """
        rows = np.asarray(rows)
        if rows.size and not (rows.min() >= 0 and rows.max() < len(self)):
            raise IndexError(f"rows {rows.min()} to {rows.max()} are out of range for {len(self)} examples")
        shards, offsets = np.divmod(rows, self.manifest.shard_rows)
        order = np.argsort(shards, kind="stable")
        present, firsts = np.unique(shards[order], return_index=True)
        chosen = np.split(order, firsts[1:])  # Positions in `rows` of the rows of each shard.
        parts = self._arrays({int(shard): offsets[at] for shard, at in zip(present, chosen, strict=False)})
        # NumPy stores unknown types such as bfloat16 as raw bytes.
        columns = [self._row_format.columns(_typed(array, self._row_format.row.base)) for array, _ in parts]

        def gathered(*each: np.ndarray) -> np.ndarray:
            """Returns the rows of one array, from its parts in all shards."""
            if len(each) == 1:
                return each[0][offsets - parts[0][1]]
            out = np.empty((len(rows), *each[0].shape[1:]), each[0].dtype)
            for column, at, (_, first) in zip(each, chosen, parts, strict=True):
                out[at] = column[offsets[at] - first]
            return out

        if not parts:
            columns = [self._row_format.columns(np.empty(0, self._row_format.row))]
            return jax.tree.map(np.copy, columns[0])
        return jax.tree.map(gathered, *columns)

    def _arrays(self, offsets: dict[int, np.ndarray]) -> list[tuple[np.ndarray, int]]:
        """Returns for each shard an array with the rows at offsets, and the offset of its first row."""
        if self._shards is not None:
            return [(self._shards[index], 0) for index in offsets]
        assert self._bucket is not None
        return self._bucket.arrays(offsets)


def _typed(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    return array if array.dtype == dtype else array.view(dtype)


def _reopen(directory: str) -> FeatureCache:
    """Returns the cache in a folder that another process has checked."""
    return FeatureCache(directory, check=False)
