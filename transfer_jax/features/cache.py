"""Features on disk: NumPy shards with a manifest, extracted once and read memory-mapped."""

import dataclasses
import logging
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO

import jax.numpy as jnp
import numpy as np

from transfer_jax.features.manifest import (
    LABELS,
    CorruptFeaturesError,
    FeatureKey,
    Manifest,
)
from transfer_jax.files import write_atomically

_SHARD_BYTES = 32 * 2**20
_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Extraction:
    """What an extraction did.

    Attributes:
        cache: The complete features.
        rows: Rows that had to be computed; 0 when all of them were there.
        seconds: Wall time of computing and writing them.
    """

    cache: "FeatureCache"
    rows: int
    seconds: float


class FeatureCache:
    """Complete features, memory-mapped.

    Args:
        directory: A folder that `extract` wrote.

    Raises:
        FileNotFoundError: If there is no manifest.
        CorruptFeaturesError: If any file is incomplete, missing or damaged; it is named.
    """

    def __init__(self, directory: Path) -> None:
        manifest = Manifest.read(directory)
        if not manifest.complete():
            raise CorruptFeaturesError(f"{directory} is incomplete: the extraction was interrupted")
        for path in manifest.damaged(directory):
            raise CorruptFeaturesError(f"{path} does not match its checksum")
        self.directory = directory
        self.manifest = manifest
        self.dtype = jnp.dtype(manifest.dtype)
        # NumPy stores types that it does not know, such as bfloat16, as raw bytes: hence the view.
        self._shards = [
            np.load(directory / name, mmap_mode="r").view(self.dtype) for name in manifest.shards()
        ]

    def __len__(self) -> int:
        return self.manifest.rows

    def gather(self, rows: np.ndarray) -> np.ndarray:
        """The rows asked for, `(len(rows), *row_shape)`."""
        shards, offsets = np.divmod(rows, self.manifest.shard_rows)
        out = np.empty((len(rows), *self.manifest.row_shape), self.dtype)
        for shard in np.unique(shards):
            chosen = shards == shard
            out[chosen] = self._shards[shard][offsets[chosen]]
        return out


def extract(
    key: FeatureKey,
    *,
    rows: int,
    batch_size: int,
    row_shape: tuple[int, ...],
    batches: Callable[[int], Iterable[np.ndarray]],
    labels: np.ndarray,
    root: Path,
    advance: Callable[[int], None] = lambda rows: None,
) -> Extraction:
    """Completes the features of a key on disk, shard by shard.

    A shard is there whole or not at all, so that an extraction goes on where it was killed. What is damaged
    is named in a warning and extracted anew. Memory is that of one batch.

    Args:
        key: What the features depend on.
        rows: Number of rows: views x images.
        batch_size: Rows that `batches` yields at a time.
        row_shape: Shape of one row.
        batches: Called with the number of batches to skip; yields features `(batch_size, *row_shape)` in
            order, with padding rows at the end of the last.
        labels: `(rows,)`, written as `labels.npy` beside the shards.
        root: Folder of all caches; this one goes into a folder named after the key.
        advance: Called with the number of rows done.
    """
    directory = root / key.digest()[:20]
    manifest = _open(directory, key, rows, batch_size, row_shape)
    started, done = time.perf_counter(), 0

    def write(name: str, shape: tuple[int, ...], parts: Iterable[np.ndarray], dtype: np.dtype) -> None:
        nonlocal manifest
        sha = write_atomically(directory / name, lambda file: _save_parts(file, shape, parts, dtype))
        manifest = dataclasses.replace(manifest, files={**manifest.files, name: sha})
        manifest.write(directory)

    if LABELS not in manifest.files:
        write(LABELS, labels.shape, [labels], labels.dtype)
    source, position = None, -1
    for index, name in enumerate(manifest.shards()):
        first = index * manifest.shard_rows
        count = min(manifest.shard_rows, rows - first)
        if name in manifest.files:
            advance(count)
            continue
        if source is None or position != first:
            source, position = iter(batches(first // batch_size)), first
        write(name, (count, *row_shape), _rows(source, count, batch_size, advance), jnp.dtype(manifest.dtype))
        position += count
        done += count
    return Extraction(FeatureCache(directory), done, time.perf_counter() - started)


def _rows(
    batches: Iterator[np.ndarray], count: int, batch_size: int, advance: Callable[[int], None]
) -> Iterator[np.ndarray]:
    """The next `count` rows, a batch at a time, without the padding of the last."""
    for start in range(0, count, batch_size):
        part = next(batches)[: count - start]
        yield part
        advance(len(part))


def _save_parts(
    file: IO[bytes], shape: tuple[int, ...], parts: Iterable[np.ndarray], dtype: np.dtype
) -> None:
    """What `np.save` writes of the parts joined, with one part in memory at a time."""
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    for part in parts:
        file.write(part.astype(dtype, copy=False).tobytes())


def _open(
    directory: Path, key: FeatureKey, rows: int, batch_size: int, row_shape: tuple[int, ...]
) -> Manifest:
    """The manifest of what is already there and whole, on disk."""
    row_bytes = int(np.prod(row_shape)) * jnp.dtype(key.dtype).itemsize
    fresh = Manifest(
        key=key.to_json(),
        rows=rows,
        shard_rows=max(1, _SHARD_BYTES // (row_bytes * batch_size)) * batch_size,
        row_shape=row_shape,
        dtype=key.dtype,
    )
    try:
        manifest = Manifest.read(directory)
    except FileNotFoundError:
        manifest = fresh
    except CorruptFeaturesError as error:
        _logger.warning("%s; all of its features are extracted anew", error)
        shutil.rmtree(directory)
        manifest = fresh
    if dataclasses.replace(manifest, files={}) != fresh:
        manifest = fresh
    damaged = manifest.damaged(directory)
    for path in damaged:
        _logger.warning("%s does not match its checksum; it is extracted anew", path)
    bad = {path.name for path in damaged}
    manifest = dataclasses.replace(
        manifest, files={name: sha for name, sha in manifest.files.items() if name not in bad}
    )
    directory.mkdir(parents=True, exist_ok=True)
    manifest.write(directory)
    return manifest
