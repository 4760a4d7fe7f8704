"""Extraction of features into NumPy shards with a manifest."""

import concurrent.futures
import contextlib
import dataclasses
import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from transfer_jax.distributed import processes
from transfer_jax.features.cache_dir import FeatureCacheDir, delete_cache, unfinished_files
from transfer_jax.features.cache_files import LocalFiles, open_files, write
from transfer_jax.features.feature_cache import FeatureCache
from transfer_jax.features.manifest import LABELS, CorruptFeaturesError, FeatureKey, Manifest, shard_name
from transfer_jax.features.row_format import RowFormat, squared_error
from transfer_jax.storage.remote import display_path

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
    processes of a run divide the missing shards among them, each a contiguous part, and each writes its own
    directly to its place, also in object storage.

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
            _prepare(key, layout, labels, cache_dir, directory)
        processes.wait("manifest written")
        manifest = Manifest.read(directory)
        missing = [index for index in range(manifest.shard_count) if shard_name(index) not in manifest.files]
        processes.wait("manifest read")
        written = _Writer(directory, manifest, advance).complete(missing, batches)
        if missing:
            parts = processes.gather_texts(json.dumps(written))
            if processes.is_first():
                _complete(manifest, [each for part in parts for each in json.loads(part)]).write(directory)
        processes.wait("features complete")
        rows = sum(manifest.rows_of(index) for index in missing)
        return Extraction(FeatureCache(directory, check=False), rows, time.perf_counter() - started)


def _complete(manifest: Manifest, written: Iterable[tuple[str, str, Any]]) -> Manifest:
    """Returns the manifest with files that were written: their names, hashes and errors."""
    files, errors = dict(manifest.files), dict(manifest.errors)
    for name, sha, sums in written:
        files[name] = sha
        if sums is not None:
            errors[name] = tuple(sums)
    return dataclasses.replace(manifest, files=files, errors=errors)


def _prepare(
    key: FeatureKey, layout: Layout, labels: np.ndarray | None, cache_dir: FeatureCacheDir, directory: Path
) -> None:
    """Writes the manifest, which lists the undamaged files, and the labels."""
    manifest = _undamaged(directory, layout.manifest(key, labels=labels is not None))
    if manifest.complete():
        open_files(directory).mark_used()
        return
    cache_dir.reserve(manifest, directory)
    if labels is not None and LABELS not in manifest.files:
        sha = write(open_files(directory), LABELS, lambda file: np.save(file, labels))
        dataclasses.replace(manifest, files={**manifest.files, LABELS: sha}).write(directory)


class _Writer:
    """Writes the missing shards of a cache that belong to this process."""

    def __init__(self, directory: Path, manifest: Manifest, advance: Callable[[int], None]) -> None:
        self._files = open_files(directory)
        self._manifest = manifest
        self._advance = advance

    def complete(self, missing: Sequence[int], batches: RowBatches) -> list[tuple[str, str, Any]]:
        """Writes the n-th of equal parts of the missing shards, and returns their names, hashes and errors.

        While a shard is sent to object storage, the next one is computed.
        """
        manifest = self._manifest
        mine = {*np.array_split(missing, processes.count())[processes.index()].tolist()}
        starts = {index: index * manifest.shard_rows for index in sorted(mine)}
        ranges = [(first, first + manifest.rows_of(index)) for index, first in starts.items()]
        source, stored = iter(batches(ranges)) if ranges else iter(()), []
        with concurrent.futures.ThreadPoolExecutor(1, "features") as pool:
            for index in range(manifest.shard_count):
                count = manifest.rows_of(index)
                if index not in mine:
                    self._advance(count)
                    continue
                if len(stored) > 1:
                    stored[-2].result()  # One shard waits while one is stored.
                written = self._shard(shard_name(index), source, count)
                stored.append(pool.submit(self._store, *written))
                if isinstance(self._files, LocalFiles):
                    stored[-1].result()  # A kill loses no shard that is computed.
        return [each.result() for each in stored]

    def _shard(
        self, name: str, batches: Iterator[Mapping[str, np.ndarray]], count: int
    ) -> tuple[contextlib.ExitStack, str, str, tuple[float, float] | None]:
        """Writes a shard to a temporary file, and returns the arguments of `_store`."""
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

        with contextlib.ExitStack() as stack:
            file = stack.enter_context(self._files.writing(name))
            _save_parts(file, count, encoded(), row_format.row)
            file.flush()
            errors = (sum(each[0] for each in sums), sum(each[1] for each in sums)) if sums else None
            return stack.pop_all(), name, file.sha256, errors

    def _store(
        self, file: contextlib.ExitStack, name: str, sha: str, errors: tuple[float, float] | None
    ) -> tuple[str, str, Any]:
        file.close()
        self._manifest.note(self._files, name, sha, errors)
        return name, sha, errors


def _errors(
    row_format: RowFormat, part: Mapping[str, np.ndarray], rows: np.ndarray
) -> Iterator[tuple[float, float]]:
    """Yields the `squared_error` of each array that is stored with a reduced precision."""
    reduced = [name for name, each in row_format.arrays.items() if each.stored != str(part[name].dtype)]
    decoded = row_format.decode(row_format.columns(rows)) if reduced else {}
    for name in reduced:
        yield squared_error(part[name], decoded[name])


def _save_parts(file: Any, count: int, parts: Iterable[np.ndarray], row: np.dtype) -> None:
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
        _logger.warning("%s does not match its checksum; it is extracted again", display_path(path))
    bad = {path.name for path in damaged}
    files = {name: sha for name, sha in manifest.files.items() if name not in bad}
    manifest = dataclasses.replace(manifest, files=files)
    # Features of another origin differ in their last bits: a cache has a single origin, a complete one any.
    origin = manifest.origin if manifest.complete() else fresh.origin
    # Batches of another size would have other shards: a cache keeps those with which it started.
    expected = dataclasses.replace(fresh, origin=origin, shard_rows=manifest.shard_rows)
    if dataclasses.replace(manifest, files={}, errors={}) != expected:
        manifest = fresh
    for path in unfinished_files(directory):  # Of a process that was killed.
        path.unlink()
    return manifest
