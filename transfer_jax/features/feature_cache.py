"""A cache of features on disk, read memory-mapped or from memory."""

import operator
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, SupportsIndex

import jax
import numpy as np

from transfer_jax.features.manifest import CorruptFeaturesError, FeatureKey, Manifest
from transfer_jax.features.row_format import relative_error
from transfer_jax.storage.remote import local_path, pull


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
        pull(directory)
        manifest = Manifest.read(directory)
        if not manifest.complete():
            raise CorruptFeaturesError(f"{directory} is incomplete: the extraction was interrupted")
        for path in manifest.damaged(directory) if check else []:
            raise CorruptFeaturesError(f"{path} does not match its checksum")
        self.directory = directory
        self.manifest = manifest
        self._row_format = manifest.row_format
        self._use([self._load(name) for name in manifest.shards()])

    def _load(self, name: str) -> np.ndarray:
        mapped = np.load(self.directory / name, mmap_mode="r")
        shard = np.asarray(mapped)  # Still mapped, but without the slower indexing of `np.memmap`.
        # NumPy stores unknown types such as bfloat16 as raw bytes.
        return shard if shard.dtype == self._row_format.row.base else shard.view(self._row_format.row.base)

    def _use(self, shards: Sequence[np.ndarray]) -> None:
        self._shards = shards
        self._columns = [self._row_format.columns(shard) for shard in shards]

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self.directory,)

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
        shard, offset = divmod(number % len(self), self.manifest.shard_rows)
        row = jax.tree.map(lambda column: np.array(column[offset : offset + 1]), self._columns[shard])
        return {name: array[0] for name, array in self._row_format.decode(row).items()}

    def read(self) -> None:
        """Reads all features into memory and keeps them there."""
        self._use([np.array(shard) for shard in self._shards])

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
        present = np.unique(shards)

        def gathered(*columns: np.ndarray) -> np.ndarray:
            """Returns the rows of one array, from its parts in all shards."""
            if len(present) == 1:
                return columns[present[0]][offsets]
            out = np.empty((len(rows), *columns[0].shape[1:]), columns[0].dtype)
            for shard in present:
                chosen = shards == shard
                out[chosen] = columns[shard][offsets[chosen]]
            return out

        return jax.tree.map(gathered, *self._columns)


def _reopen(directory: Path) -> FeatureCache:
    """Returns the cache in a folder that another process has checked."""
    return FeatureCache(directory, check=False)
