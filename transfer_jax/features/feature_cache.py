"""A cache of features on disk, read memory-mapped or from memory."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np

from transfer_jax.features.manifest import CorruptFeaturesError, FeatureKey, Manifest
from transfer_jax.features.row_format import relative_error
from transfer_jax.storage.remote import pull


class FeatureCache:
    """A complete cache of features. It is memory-mapped until `read` is called.

    Example:
        >>> cache = FeatureCache(Path("features/0123456789abcdef0123"))
        >>> rows = cache.gather(np.arange(32))  # (32, *row_shape)

    Args:
        directory: A folder that `write_shards` wrote.
        check: True reads every file and compares its checksum.

    Raises:
        FileNotFoundError: If there is no manifest.
        CorruptFeaturesError: If the cache is incomplete, or a file is missing or damaged. The message
            names the file.
    """

    def __init__(self, directory: Path, *, check: bool = True) -> None:
        pull(directory)
        manifest = Manifest.read(directory)
        if not manifest.complete():
            raise CorruptFeaturesError(f"{directory} is incomplete: the extraction was interrupted")
        for path in manifest.damaged(directory) if check else []:
            raise CorruptFeaturesError(f"{path} does not match its checksum")
        self.directory = directory
        self.manifest = manifest
        self._row_format = manifest.row_format
        self._shards = [self._load(name) for name in manifest.shards()]

    def _load(self, name: str) -> np.ndarray:
        shard = np.load(self.directory / name, mmap_mode="r")
        # NumPy stores unknown types such as bfloat16 as raw bytes.
        return shard if shard.dtype.names else shard.view(jnp.dtype(self.manifest.dtype))

    @property
    def boundary(self) -> str:
        """The block whose activations the features are."""
        return FeatureKey.from_json(self.manifest.key).boundary

    @property
    def error(self) -> float:
        """The root mean square error of the stored features, as a fraction of their root mean square."""
        return relative_error(list(self.manifest.errors.values()))

    def __len__(self) -> int:
        return self.manifest.rows

    def read(self) -> None:
        """Reads all features into memory and keeps them there."""
        self._shards = [np.array(shard) for shard in self._shards]

    def gather(self, rows: np.ndarray) -> np.ndarray:
        """Returns the features of some rows.

        Args:
            rows: int `(n,)`, positions of the rows.

        Returns:
            `(n, *row_shape)`, in the stored dtype, or float32 if int8 is stored.
        """
        return self._row_format.decode(self._rows(rows))

    def columns(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Returns some rows as they are stored; see `RowFormat.columns`."""
        return self._row_format.columns(self._rows(rows))

    def _rows(self, rows: np.ndarray) -> np.ndarray:
        shards, offsets = np.divmod(rows, self.manifest.shard_rows)
        out = np.empty(len(rows), self._row_format.row)
        for shard in np.unique(shards):
            chosen = shards == shard
            out[chosen] = self._shards[shard][offsets[chosen]]
        return out
