"""The shards of a split in array_record files, with random access."""

import bisect
import collections
import contextlib
import itertools
import os
import threading
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

_OPTIONS = "readahead_buffer_size:0"
_BLOCK_OPTIONS = "readahead_buffer_size:1048576"
_NO_PREFETCH = "footer_prefetch_bytes:0"
"""An option of newer versions of array_record, which otherwise read 1 MB to open a file."""
_BUFFER = 4096
"""Bytes that are read at once. A larger buffer reads a multiple of the records that are needed."""
_BLOCK_BYTES, _BLOCK_RECORDS = 16 << 20, 4096
"""Largest size and number of records that are read at once in order."""
_RESERVED_FILES = 128
"""Number of open files that are left for other purposes."""


class Shard(NamedTuple):
    """Consecutive records of a file.

    Attributes:
        file: The path.
        skip: Number of records before them.
        take: Number of records.
        records: Number of records in the file.
        size: Size of the file in bytes.
        modified: Time of modification in nanoseconds.
    """

    file: str
    skip: int
    take: int
    records: int
    size: int
    modified: int

    def check(self) -> None:
        """Raises `OSError` if the file is missing or is not the one that was listed."""
        status = os.stat(self.file)
        if (status.st_size, status.st_mtime_ns) != (self.size, self.modified):
            raise OSError(f"{self.file!r} has changed since this run listed it")

    def blocks(self) -> Iterator[list[bytes]]:
        """Yields all records in order, in blocks.

        Raises:
            ValueError: If the file is truncated, damaged, or has another number of records.
            OSError: If it is missing or not readable, or changed.
        """
        reader = _opened(self, _BLOCK_OPTIONS)
        block = max(1, min(_BLOCK_RECORDS, _BLOCK_BYTES * self.records // max(1, self.size)))
        end = self.skip + self.take
        for first in range(self.skip, end, block):
            try:
                yield reader.read(first, min(first + block, end))
            except (RuntimeError, ValueError, IndexError) as error:
                raise ValueError(_damage(self, error)) from error
        self.check()


class ShardRecords(Sequence[bytes]):
    """The records of shards, one after the other. Threads and other processes read them.

    Args:
        shards: The shards.
    """

    def __init__(self, shards: Sequence[Shard]) -> None:
        self.shards = tuple(shards)
        self._ends = [*itertools.accumulate(shard.take for shard in self.shards)]
        self._prepare()

    def _prepare(self) -> None:
        self._lock = threading.Lock()
        self._readers: collections.OrderedDict[int, Any] = collections.OrderedDict()
        self._most = _most_open(len(self.shards))

    def __getstate__(self) -> dict[str, Any]:
        return {"shards": self.shards, "_ends": self._ends}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._prepare()

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self.__getitems__(range(*index.indices(len(self))))
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[bytes]:
        """Returns some records; those of one shard are read at once.

        Raises:
            OSError: If a record is not readable, or its file changed since it was listed.
        """
        by_shard: dict[int, list[int]] = {}
        for row, index in enumerate(indices):
            if not 0 <= index < len(self):
                raise IndexError(f"index {index} is out of range for {len(self)} records")
            by_shard.setdefault(bisect.bisect_right(self._ends, index), []).append(row)
        records = [b""] * len(indices)
        for number, rows in by_shard.items():
            shard = self.shards[number]
            start = self._ends[number] - shard.take - shard.skip
            reader = self._reader(number)
            try:
                found = reader.read([int(indices[row]) - start for row in rows])
            except (RuntimeError, ValueError, IndexError) as error:
                raise OSError(_damage(shard, error)) from error
            for row, record in zip(rows, found, strict=True):
                records[row] = record
        return records

    def _reader(self, number: int) -> Any:
        """Returns the reader of a shard; the least recently used ones are closed."""
        with self._lock:
            if number in self._readers:
                self._readers.move_to_end(number)
                return self._readers[number]
        try:
            reader = _opened(self.shards[number], _OPTIONS)
        except ValueError as error:
            raise OSError(str(error)) from error
        with self._lock:
            reader = self._readers.setdefault(number, reader)
            while len(self._readers) > self._most:
                self._readers.popitem(last=False)  # It is closed when no thread uses it.
        return reader


def _opened(shard: Shard, options: str) -> Any:
    """Returns the reader of a shard.

    Raises:
        ValueError: If the file is truncated or damaged, or has another number of records.
        OSError: If it is missing or not readable, or changed.
    """
    shard.check()
    try:
        reader = _reader(shard.file, options)
        count = reader.num_records() if reader.ok() else None
    except (RuntimeError, ValueError) as error:
        raise ValueError(_damage(shard, error)) from error
    if count is None:
        raise ValueError(_damage(shard, "it is truncated"))
    if count != shard.records:
        raise ValueError(
            _damage(shard, f"it has {count:,} records, dataset_info.json says {shard.records:,}")
        )
    return reader


def _reader(file: str, options: str) -> Any:
    from array_record.python import array_record_module  # pyright: ignore[reportAttributeAccessIssue]

    for extended in (f"{options},{_NO_PREFETCH}", options):
        try:
            return array_record_module.ArrayRecordReader(
                file, options=extended, file_reader_buffer_size=_BUFFER
            )
        except ValueError:
            if extended == options:
                raise
    return None


def _damage(shard: Shard, error: object) -> str:
    first = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
    return (
        f"{shard.file!r} is truncated or damaged ({first}); prepare the dataset again, or copy the file again"
    )


def _most_open(files: int) -> int:
    """Returns the number of files that may be open; raises the limit of this process if it is needed."""
    try:
        import resource
    except ImportError:  # Windows.
        return max(1, min(files, 384))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = files + 2 * _RESERVED_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        raised = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
            soft = raised
    return files if soft == resource.RLIM_INFINITY else max(1, min(files, soft - _RESERVED_FILES))
