"""The index of a source, made in threads by all processes of a run, and resumed where it was killed."""

import contextlib
import json
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, Protocol

import jax

from transfer_jax.counted import counted
from transfer_jax.data.index.dataset_index import (
    VERSION,
    DatasetIndex,
    IndexInvalidError,
    open_index,
    plain_json,
    read_index,
    source_hash,
)
from transfer_jax.data.index.join import Finish, join_parts
from transfer_jax.data.index.part import DamagedPartsError, PartIndex, write_parts
from transfer_jax.data.index.place import IndexPlace, NotWritableError
from transfer_jax.distributed import processes
from transfer_jax.storage.byte_ranges import StorageError
from transfer_jax.storage.file_lock import file_lock

PARTS = "parts"
"""The folder of the finished groups of parts."""
_GROUPS = 512
"""Largest number of groups of parts; each is a file while the index is made."""
_PATIENCE = 10.0
"""Seconds without a new group of another process after which this one reads the groups that are missing."""
_THREADS = 16
"""Largest number of threads that read parts."""
_LOOK = 0.5
"""Seconds between looks at the groups of other processes."""


class IndexProgress(Protocol):
    """An object that shows the progress, such as a `report.progress.Progress`."""

    def start(self, task: str, total: int, *, done: int = 0) -> None: ...
    def advance(self, images: int, **values: float) -> None: ...
    def finish(self) -> None: ...
    def log(self, message: str) -> None: ...


def build_index(
    kind: str,
    key: Any,
    parts: Sequence[Any],
    read_part: Callable[[Any], PartIndex],
    place: IndexPlace,
    progress: IndexProgress | None = None,
    *,
    finish: Finish | None = None,
    total: int | None = None,
) -> DatasetIndex:
    """Returns the index of a source; makes it if there is no valid one.

    Nothing is written if `read_part` raises an error, except finished groups of other parts.

    Args:
        kind: The kind of source, such as `tfds`, with a version of its columns.
        key: All that the columns of every part depend on, as JSON, such as options and a list of classes.
        parts: The parts in the order of the examples, as JSON. Each describes itself, with size and time or
            etag: with the same key, a part of the same description has the same columns.
        read_part: Function from a part to its columns. It is called in threads, and raises an error if the
            part is not what its description says, such as a shard that is truncated.
        place: The place of the index, see `index_place`.
        progress: Receives the progress and a line that says why an index is made; None shows none.
        finish: Function from all columns to further facts; see `join_parts`.
        total: Number of examples, if it is known, for the progress; None counts parts.

    Raises:
        ValueError: If there are no parts, or they have different columns.
        OSError: If the index is not writable, such as on a full disk.
    """
    with contextlib.suppress(IndexInvalidError):
        return open_index(place, kind, key, parts)
    if not parts:
        raise ValueError(f"the source has no parts, so there is nothing to index: {key}")
    place.folder.mkdir(parents=True, exist_ok=True)
    count = jax.process_count() if jax.distributed.is_initialized() else 1
    # Processes of one run work together. Others wait for each other.
    lock = file_lock(place.folder / ".lock") if count == 1 else contextlib.nullcontext()
    with lock:
        try:
            return open_index(place, kind, key, parts)
        except IndexInvalidError as error:
            reason = error
        if progress is not None:
            progress.log(f"indexing the images ({counted(len(parts), 'part')}) into {place.folder}: {reason}")
        work = _Work(kind, key, parts, read_part, place, progress, total)
        work.start(_earlier(place, kind, key))
        return work.joined(finish, count)


def _earlier(place: IndexPlace, kind: str, key: Any) -> DatasetIndex | None:
    """Returns an earlier index of whose parts some may be unchanged."""
    with contextlib.suppress(IndexInvalidError):
        index = read_index(place)
        return index if (index.kind, index.key) == (kind, plain_json(key)) else None
    return None


class _Work:
    """An index that is being made."""

    def __init__(
        self,
        kind: str,
        key: Any,
        parts: Sequence[Any],
        read_part: Callable[[Any], PartIndex],
        place: IndexPlace,
        progress: IndexProgress | None,
        total: int | None,
    ) -> None:
        self.kind, self.key, self.read_part = kind, key, read_part
        self.place, self.progress, self.total = place, progress, total
        size = -(-len(parts) // _GROUPS)
        self.groups = {
            f"{source_hash(kind, key, group)}.npz": group
            for group in (parts[first : first + size] for first in range(0, len(parts), size))
        }
        self.parts = parts
        self._counted: set[str] = set()
        self._lock = threading.Lock()
        self._slowest = 0.0

    def start(self, earlier: DatasetIndex | None) -> None:
        """Starts the progress, and prepares the parts that are taken from an earlier index."""
        self._known: dict[str, int] = {}
        self._earlier = earlier
        if earlier is not None:
            finished = {*earlier.values["finished"]}
            self._columns = [name for name in earlier.columns if name not in finished]
            self._known = {_text(part): place for place, part in enumerate(earlier.parts)}
            self._starts = earlier.part_starts
        if self.progress is not None:
            self.progress.start("indexing images", self.total or len(self.parts))

    def joined(self, finish: Finish | None, count: int) -> DatasetIndex:
        """Reads all parts and joins them."""
        try:
            index = processes.index() if count > 1 else 0
            done = self._done()
            self._read([name for name in [*self.groups][index::count] if name not in done])
            if (found := self._wait_for_others(index, count)) is not None:
                self.place.delete(PARTS)  # Groups that this process wrote after the index was complete.
                return found
            try:
                return self._join(finish, count)
            except Exception as error:
                self._discard(keep_parts=count > 1 or not isinstance(error, ValueError))
                raise
        finally:
            if self.progress is not None:
                self.progress.finish()

    def _join(self, finish: Finish | None, count: int) -> DatasetIndex:
        """Joins all groups; one that is damaged is read again first."""
        while True:
            try:
                files = [self.place.load(f"{PARTS}/{name}") for name in self.groups]
                head = {"version": VERSION, "kind": self.kind, "key": self.key}
                contents = source_hash(self.kind, self.key, self.parts)
                join_parts(self.place, files, head, self.parts, contents, finish)
                result = open_index(self.place, self.kind, self.key, self.parts)
                break
            except NotWritableError as error:
                self._to_local(error)
            except DamagedPartsError as error:
                self.place.delete(f"{PARTS}/{error.path.name}")
                self._read([error.path.name])
            except FileNotFoundError:  # The first process has joined them and deleted the parts.
                if count == 1 or (found := self._opened()) is None:
                    raise
                return found
        self.place.delete(PARTS)
        self.place.delete_old(result.contents)
        return result

    def _discard(self, *, keep_parts: bool) -> None:
        """Deletes the columns of an index that cannot be completed.

        Args:
            keep_parts: False if the source is not usable, so that its finished parts are of no use.
        """
        with contextlib.suppress(OSError, StorageError):
            if self._opened() is None:
                self.place.delete(source_hash(self.kind, self.key, self.parts))
                if not keep_parts:
                    self.place.delete(PARTS)

    def _opened(self) -> DatasetIndex | None:
        """Returns the index if another process has completed it."""
        with contextlib.suppress(IndexInvalidError):
            return open_index(self.place, self.kind, self.key, self.parts)
        return None

    def _done(self) -> set[str]:
        done = self.place.names(PARTS) & self.groups.keys()
        with self._lock:
            for name in sorted(done - self._counted):
                self._count(name)
        return done

    def _count(self, name: str, images: int | None = None) -> None:
        """Counts a finished group in the progress; the lock is held."""
        self._counted.add(name)
        if self.progress is None:
            return
        if self.total is None:
            images = len(self.groups[name])
        elif images is None:
            images = round(self.total * len(self.groups[name]) / len(self.parts))
        self.progress.advance(images)

    def _read(self, names: Sequence[str]) -> None:
        """Reads groups of parts in threads; the first error ends it."""
        upcoming: Iterator[str] = iter(names)
        pending: set[Future[None]] = set()
        workers = min(processes.cores(), _THREADS)
        with ThreadPoolExecutor(workers) as pool:
            try:
                for name in upcoming:
                    pending.add(pool.submit(self._read_group, name))
                    if len(pending) >= 2 * workers:
                        done, pending = wait(pending, return_when=FIRST_COMPLETED)
                        for each in done:
                            each.result()
                for each in pending:
                    each.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _read_group(self, name: str) -> None:
        started = time.monotonic()
        read = [self._part(part) for part in self.groups[name]]
        try:
            self.place.save(f"{PARTS}/{name}", lambda path: write_parts(path, read))
        except NotWritableError as error:
            self._to_local(error)
        with self._lock:
            self._slowest = max(self._slowest, time.monotonic() - started)
            self._count(name, sum(map(len, read)))

    def _part(self, part: Any) -> PartIndex:
        place = self._known.get(_text(part)) if self._known else None
        if place is None:
            return self.read_part(part)
        assert self._earlier is not None
        first, end = int(self._starts[place]), int(self._starts[place + 1])
        return PartIndex(
            columns={name: self._earlier.column(name)[first:end] for name in self._columns},
            texts={name: self._earlier.texts(name).part(first, end) for name in self._earlier.text_names},
            about=self._earlier.part_abouts[place],
            count=end - first,
        )

    def _to_local(self, error: NotWritableError) -> None:
        """Continues on this machine if the bucket is not writable."""
        with self._lock:
            if self.place.system is not None and self.progress is not None:
                self.progress.log(f"{error}; the index is kept in {self.place.folder}")
            self.place = self.place.local()

    def _wait_for_others(self, index: int, count: int) -> DatasetIndex | None:
        """Waits until all groups are read; reads those of other processes if no new ones appear.

        Returns:
            The index, if another process has joined the groups; None if this one must.
        """
        changed, before = time.monotonic(), -1
        while count > 1:
            if (found := self._opened()) is not None:
                return found
            done = self._done()
            missing = [name for name in self.groups if name not in done]
            if not missing and index == 0:
                return None
            if len(done) != before:
                changed, before = time.monotonic(), len(done)
            if time.monotonic() - changed < max(_PATIENCE, 2 * self._slowest):
                time.sleep(_LOOK)
                continue
            if not missing:  # The first process has ended, or has a place of its own.
                return None
            random.shuffle(missing)
            self._read(missing[: processes.cores()])
            changed = 0.0
            before = len(self._done())
        return None


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
