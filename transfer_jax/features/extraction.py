"""Extraction: features become NumPy shards with a manifest, once."""

import dataclasses
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np

from transfer_jax.distributed import processes
from transfer_jax.features.cache_dir import FeatureCacheDir, touch
from transfer_jax.features.feature_cache import FeatureCache
from transfer_jax.features.manifest import LABELS, CorruptFeaturesError, FeatureKey, Manifest
from transfer_jax.features.row_format import RowFormat, squared_error
from transfer_jax.storage.atomic_write import write_atomically
from transfer_jax.storage.remote import pull, push, remove

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

    cache: FeatureCache
    rows: int
    seconds: float


@dataclasses.dataclass(frozen=True)
class Layout:
    """What is extracted, apart from what it depends on.

    Attributes:
        rows: Number of rows: views x images.
        batch_size: Rows that are computed at a time; a shard holds whole batches.
        row_shape: Shape of one row.
        origin: The lower boundary whose cached features the rows are computed from; None for images.
    """

    rows: int
    batch_size: int
    row_shape: tuple[int, ...]
    origin: str | None = None

    def manifest(self, key: FeatureKey) -> Manifest:
        """The manifest of these features before the first shard."""
        storage = RowFormat(self.row_shape, key.stored or key.dtype)
        return Manifest(
            key=key.to_json(),
            rows=self.rows,
            shard_rows=max(1, _SHARD_BYTES // (storage.row_bytes * self.batch_size)) * self.batch_size,
            row_shape=self.row_shape,
            dtype=storage.dtype,
            origin=self.origin,
        )


Pieces = Sequence[tuple[int, int]]
"""Ranges of rows."""


def extract(
    key: FeatureKey,
    layout: Layout,
    batches: Callable[[Pieces], Iterable[np.ndarray]],
    labels: np.ndarray,
    store: FeatureCacheDir,
    *,
    advance: Callable[[int], None] = lambda rows: None,
    say: Callable[[str], None] = _logger.info,
) -> Extraction:
    """Completes the features of a key on disk, shard by shard.

    A shard is there whole or not at all, so that an extraction goes on where it was killed. What is damaged
    is named in a warning and extracted anew. Memory is that of one batch. Several processes of a run share
    the shards that are missing, whichever wrote those that are there.

    Args:
        key: What the features depend on.
        layout: Rows and their shape.
        batches: Called with ranges of rows; yields their features `(rows, *row_shape)` in order, in arrays
            that lie within one range each.
        labels: `(rows,)`, written as `labels.npy` beside the shards.
        store: Where caches are.
        advance: Called with the number of rows done.
        say: Called with a line if another run writes these features, and is waited for.

    Raises:
        FeatureBudgetError: If they need more disk than the budget.
        ValueError: If what is stored cannot hold them.
    """
    with store.writing(key, say) as directory:
        started = time.perf_counter()
        if processes.is_first():
            pull(directory)
            _begin(key, layout, labels, store, directory)
            push(directory)
        processes.wait("features listed")
        pull(directory)
        manifest = Manifest.read(directory)
        missing = [name for name in manifest.shards() if name not in manifest.files]
        processes.wait("features begun")
        _Writer(directory, manifest, advance).complete(missing, batches)
        processes.wait("features written")
        if processes.is_first() and missing:
            pull(directory)
            Manifest.read(directory).write(directory)
            push(directory)
        processes.wait("features complete")
        rows = sum(manifest.rows_of(name) for name in missing)
        return Extraction(FeatureCache(directory, check=False), rows, time.perf_counter() - started)


def _begin(
    key: FeatureKey, layout: Layout, labels: np.ndarray, store: FeatureCacheDir, directory: Path
) -> None:
    """Writes the manifest of what is there and whole, and the labels."""
    manifest = _whole_files(directory, layout.manifest(key))
    if manifest.complete():
        touch(directory)
        return
    store.begin(manifest, directory)
    if LABELS not in manifest.files:
        sha = write_atomically(directory / LABELS, lambda file: np.save(file, labels))
        dataclasses.replace(manifest, files={**manifest.files, LABELS: sha}).write(directory)


class _Writer:
    """Fills this process's share of the holes of a cache."""

    def __init__(self, directory: Path, manifest: Manifest, advance: Callable[[int], None]) -> None:
        self._directory = directory
        self._manifest = manifest
        self._advance = advance

    def complete(self, missing: Sequence[str], batches: Callable[[Pieces], Iterable[np.ndarray]]) -> None:
        """Writes every so many of the missing shards."""
        manifest = self._manifest
        mine = set(missing[processes.index() :: processes.count()])
        firsts = {name: index * manifest.shard_rows for index, name in enumerate(manifest.shards())}
        pieces = [(firsts[name], firsts[name] + manifest.rows_of(name)) for name in firsts if name in mine]
        source = iter(batches(pieces)) if pieces else iter(())
        for name in firsts:
            count = manifest.rows_of(name)
            if name in mine:
                self._write_shard(name, source, count)
            else:
                self._advance(count)

    def _write_shard(self, name: str, batches: Iterator[np.ndarray], count: int) -> None:
        storage, sums = self._manifest.storage, []

        def encoded() -> Iterator[np.ndarray]:
            """The next `count` rows, a batch at a time."""
            done = 0
            while done < count:
                part = next(batches)
                rows = storage.encode(part)
                if storage.dtype != str(part.dtype):
                    sums.append(squared_error(part, storage.decode(rows)))
                done += len(part)
                yield rows
                self._advance(len(part))

        path = self._directory / name
        sha = write_atomically(path, lambda file: _save_parts(file, count, encoded(), storage.row))
        errors = (sum(each[0] for each in sums), sum(each[1] for each in sums)) if sums else None
        push(path)
        push(self._manifest.note(self._directory, name, sha, errors))


def _save_parts(file: IO[bytes], count: int, parts: Iterable[np.ndarray], row: np.dtype) -> None:
    """What `np.save` writes of the parts joined, with one part in memory at a time."""
    shape = (count, *row.shape)
    header = {"descr": np.lib.format.dtype_to_descr(row.base), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    for part in parts:
        file.write(part.tobytes())


def _whole_files(directory: Path, fresh: Manifest) -> Manifest:
    """The manifest of what is already there and whole; `fresh` if nothing is, or of another layout."""
    try:
        manifest = Manifest.read(directory)
    except FileNotFoundError:
        manifest = fresh
    except CorruptFeaturesError as error:
        _logger.warning("%s; all of its features are extracted anew", error)
        remove(directory)
        manifest = fresh
    damaged = manifest.damaged(directory)
    for path in damaged:
        _logger.warning("%s does not match its checksum; it is extracted anew", path)
    bad = {path.name for path in damaged}
    files = {name: sha for name, sha in manifest.files.items() if name not in bad}
    manifest = dataclasses.replace(manifest, files=files)
    # Features of another origin differ in their last bits: a cache is of one only, but any will do.
    origin = manifest.origin if manifest.complete() else fresh.origin
    if dataclasses.replace(manifest, files={}, errors={}) != dataclasses.replace(fresh, origin=origin):
        manifest = fresh
    for left in directory.glob(".*"):  # of a process that was killed
        left.unlink()
    return manifest
