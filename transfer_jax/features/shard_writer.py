"""Extraction of features into NumPy shards with a manifest."""

import dataclasses
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

import numpy as np

from transfer_jax.distributed import processes
from transfer_jax.features.cache_dir import FeatureCacheDir, cache_files, delete_cache, mark_used
from transfer_jax.features.feature_cache import FeatureCache
from transfer_jax.features.manifest import LABELS, CorruptFeaturesError, FeatureKey, Manifest
from transfer_jax.features.row_format import RowFormat, squared_error
from transfer_jax.storage.atomic_write import write_atomically
from transfer_jax.storage.remote import pull, push

_SHARD_BYTES = 32 * 2**20
_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Extraction:
    """The result of an extraction.

    Attributes:
        cache: The complete features.
        rows: Number of rows that were computed; 0 if all were cached already.
        seconds: Wall time of the extraction, in seconds.
    """

    cache: FeatureCache
    rows: int
    seconds: float


@dataclasses.dataclass(frozen=True)
class Layout:
    """The number, the arrays and the batches of the rows of an extraction.

    Attributes:
        rows: Number of rows: views x images.
        batch_size: Number of rows that are computed at a time; a shard contains whole batches.
        row_format: The arrays of one row, with their shapes and the dtypes in which they are stored.
        origin: The lower boundary whose cached features the rows are computed from; None computes them from
            images.
    """

    rows: int
    batch_size: int
    row_format: RowFormat
    origin: str | None = None

    def manifest(self, key: FeatureKey, *, labels: bool) -> Manifest:
        """Returns the manifest of the features before the first shard is written."""
        batch_bytes = self.row_format.row_bytes * self.batch_size
        return Manifest(
            key=key.to_json(),
            rows=self.rows,
            shard_rows=max(1, _SHARD_BYTES // batch_bytes) * self.batch_size,
            row_format=self.row_format,
            origin=self.origin,
            labels=labels,
        )


RowRanges = Sequence[tuple[int, int]]
"""Ranges of rows, each from its first row to its last (exclusive)."""
RowBatches = Callable[[RowRanges], Iterable[Mapping[str, np.ndarray]]]
"""Function from ranges of rows to their arrays by name, batch by batch."""


def write_shards(
    key: FeatureKey,
    layout: Layout,
    batches: RowBatches,
    labels: np.ndarray | None,
    cache_dir: FeatureCacheDir,
    *,
    advance: Callable[[int], None] = lambda rows: None,
    log: Callable[[str], None] = _logger.info,
) -> Extraction:
    """Extracts the features of a key to disk, shard by shard, and returns the complete cache.

    Shards are written atomically, so that an interrupted extraction continues with the first missing shard.
    Damaged files are logged as warnings and extracted again. The memory needed is that of one batch. The
    processes of a run divide the missing shards among them.

    Args:
        key: The key of the features: all that they depend on.
        layout: Number and arrays of the rows.
        batches: Function from ranges of rows to their arrays by name, `(rows, *shape)`, in order. Each batch
            that it yields is within one range. A single array has the name `features`.
        labels: `(rows,)`, the label of each row; written as `labels.npy`. None for rows without labels.
        cache_dir: The folder of caches.
        advance: Called with the number of rows that are done.
        log: Called with a line of text if another run is writing these features.

    Raises:
        FeatureBudgetError: If the features need more disk space than the budget.
        ValueError: If the stored dtype cannot represent the features.
    """
    with cache_dir.write_lock(key, log) as directory:
        started = time.perf_counter()
        if processes.is_first():
            pull(directory)
            _prepare(key, layout, labels, cache_dir, directory)
            push(directory)
        processes.wait("manifest written")
        pull(directory)
        manifest = Manifest.read(directory)
        missing = [name for name in manifest.shards() if name not in manifest.files]
        processes.wait("manifest read")
        _Writer(directory, manifest, advance).complete(missing, batches)
        processes.wait("features written")
        if processes.is_first() and missing:
            pull(directory)
            Manifest.read(directory).write(directory)
            push(directory)
        processes.wait("features complete")
        rows = sum(manifest.rows_of(name) for name in missing)
        return Extraction(FeatureCache(directory, check=False), rows, time.perf_counter() - started)


def _prepare(
    key: FeatureKey, layout: Layout, labels: np.ndarray | None, cache_dir: FeatureCacheDir, directory: Path
) -> None:
    """Writes the manifest, which lists the undamaged files, and the labels."""
    manifest = _undamaged(directory, layout.manifest(key, labels=labels is not None))
    if manifest.complete():
        mark_used(directory)
        return
    cache_dir.reserve(manifest, directory)
    if labels is not None and LABELS not in manifest.files:
        sha = write_atomically(directory / LABELS, lambda file: np.save(file, labels))
        dataclasses.replace(manifest, files={**manifest.files, LABELS: sha}).write(directory)


class _Writer:
    """Writes the missing shards of a cache that belong to this process."""

    def __init__(self, directory: Path, manifest: Manifest, advance: Callable[[int], None]) -> None:
        self._directory = directory
        self._manifest = manifest
        self._advance = advance

    def complete(self, missing: Sequence[str], batches: RowBatches) -> None:
        """Writes every n-th missing shard, where n is the number of processes."""
        manifest = self._manifest
        mine = set(missing[processes.index() :: processes.count()])
        firsts = {name: index * manifest.shard_rows for index, name in enumerate(manifest.shards())}
        ranges = [(firsts[name], firsts[name] + manifest.rows_of(name)) for name in firsts if name in mine]
        source = iter(batches(ranges)) if ranges else iter(())
        for name in firsts:
            count = manifest.rows_of(name)
            if name in mine:
                self._write_shard(name, source, count)
            else:
                self._advance(count)

    def _write_shard(self, name: str, batches: Iterator[Mapping[str, np.ndarray]], count: int) -> None:
        row_format, sums = self._manifest.row_format, []

        def encoded() -> Iterator[np.ndarray]:
            """Yields the next `count` encoded rows, one batch at a time."""
            done = 0
            while done < count:
                part = next(batches)
                rows = row_format.encode(part)
                sums.extend(_errors(row_format, part, rows))
                done += len(rows)
                yield rows
                self._advance(len(rows))

        path = self._directory / name
        sha = write_atomically(path, lambda file: _save_parts(file, count, encoded(), row_format.row))
        errors = (sum(each[0] for each in sums), sum(each[1] for each in sums)) if sums else None
        push(path)
        push(self._manifest.note(self._directory, name, sha, errors))


def _errors(
    row_format: RowFormat, part: Mapping[str, np.ndarray], rows: np.ndarray
) -> Iterator[tuple[float, float]]:
    """Yields the `squared_error` of each array that is stored with a reduced precision."""
    reduced = [name for name, each in row_format.arrays.items() if each.stored != str(part[name].dtype)]
    decoded = row_format.decode(row_format.columns(rows)) if reduced else {}
    for name in reduced:
        yield squared_error(part[name], decoded[name])


def _save_parts(file: IO[bytes], count: int, parts: Iterable[np.ndarray], row: np.dtype) -> None:
    """Writes the joined parts as `np.save` does, with one part in memory at a time."""
    shape = (count, *row.shape)
    header = {"descr": np.lib.format.dtype_to_descr(row.base), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    for part in parts:
        file.write(part.tobytes())


def _undamaged(directory: Path, fresh: Manifest) -> Manifest:
    """Returns the manifest of the undamaged files in a folder; `fresh` if there are none of this layout."""
    try:
        manifest = Manifest.read(directory)
    except FileNotFoundError:
        manifest = fresh
    except CorruptFeaturesError as error:
        _logger.warning("%s; all of its features are extracted again", error)
        delete_cache(directory)
        manifest = fresh
    damaged = manifest.damaged(directory)
    for path in damaged:
        _logger.warning("%s does not match its checksum; it is extracted again", path)
    bad = {path.name for path in damaged}
    files = {name: sha for name, sha in manifest.files.items() if name not in bad}
    manifest = dataclasses.replace(manifest, files=files)
    # Features of another origin differ in their last bits: a cache has a single origin, a complete one any.
    origin = manifest.origin if manifest.complete() else fresh.origin
    # Batches of another size would have other shards: a cache keeps those with which it started.
    expected = dataclasses.replace(fresh, origin=origin, shard_rows=manifest.shard_rows)
    if dataclasses.replace(manifest, files={}, errors={}) != expected:
        manifest = fresh
    for path in cache_files(directory):
        if path.name.startswith("."):  # A temporary file of a process that was killed.
            path.unlink()
    return manifest
