"""Features on disk, read memory-mapped or whole."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np

from transfer_jax.features.manifest import CorruptFeaturesError, FeatureKey, Manifest
from transfer_jax.features.row_format import relative_error
from transfer_jax.storage.remote import pull


class FeatureCache:
    """Complete features, memory-mapped until `read`.

    Args:
        directory: A folder that `extract` wrote.
        check: Whether to read every file and compare its checksum.

    Raises:
        FileNotFoundError: If there is no manifest.
        CorruptFeaturesError: If any file is incomplete, missing or damaged; it is named.
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
        self._storage = manifest.storage
        self._shards = [self._load(name) for name in manifest.shards()]

    def _load(self, name: str) -> np.ndarray:
        shard = np.load(self.directory / name, mmap_mode="r")
        # NumPy stores types that it does not know, such as bfloat16, as raw bytes: hence the view.
        return shard if shard.dtype.names else shard.view(jnp.dtype(self.manifest.dtype))

    @property
    def boundary(self) -> str:
        """The block that the features are the activations of."""
        return FeatureKey.from_json(self.manifest.key).boundary

    @property
    def error(self) -> float:
        """How far what is stored is from what was computed: root mean square, as a share of the features'."""
        return relative_error(list(self.manifest.errors.values()))

    def __len__(self) -> int:
        return self.manifest.rows

    def read(self) -> None:
        """Reads all features into memory, where they stay."""
        self._shards = [np.array(shard) for shard in self._shards]

    def gather(self, rows: np.ndarray) -> np.ndarray:
        """The features of the rows asked for, `(len(rows), *row_shape)`; float32 where int8 is stored."""
        return self._storage.decode(self._rows(rows))

    def columns(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """The rows asked for as stored; see `RowFormat.columns`."""
        return self._storage.columns(self._rows(rows))

    def _rows(self, rows: np.ndarray) -> np.ndarray:
        shards, offsets = np.divmod(rows, self.manifest.shard_rows)
        out = np.empty(len(rows), self._storage.row)
        for shard in np.unique(shards):
            chosen = shards == shard
            out[chosen] = self._shards[shard][offsets[chosen]]
        return out
