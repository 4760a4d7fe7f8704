"""Reads of byte ranges of objects, many at a time, through fsspec and a local cache.

The version of each object is compared with the index in the request itself: `If-Match` in S3, the generation
in Google Cloud Storage. Ranges that are close to each other in an object are read in one request.
"""

import asyncio
import concurrent.futures
import functools
import inspect
import os
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

import fsspec
import fsspec.asyn

from transfer_jax.storage.byte_ranges import (
    ByteRange,
    ChangedObjectError,
    StorageError,
    is_full,
    is_passing,
    local_tag,
    storage_error,
)
from transfer_jax.storage.object_cache import ObjectCache
from transfer_jax.storage.remote import is_remote, protocol_and_path
from transfer_jax.storage.signed_requests import can_sign, get_signed

IN_FLIGHT = 64
"""Requests at a time of one process."""
GAP = 2**13
"""Bytes between two ranges of an object that are read in one request with both."""
_MERGED = 2**23
"""Largest number of bytes of a request for several ranges."""
_PAUSES = (0.5, 2.0, 5.0)
"""Seconds before each next attempt, after those that the package of the storage makes itself."""
_SECONDS, _BYTES_PER_SECOND = 60.0, 250_000
"""The longest time without an answer; a request may take longer the more bytes it reads."""


class RangeReader:
    """Reads ranges of objects and local files. It can be pickled, and connects again in other processes.

    Example:
        >>> reader = RangeReader()
        >>> reader.read([ByteRange("s3://bucket/shard.tar", 512, 9_216, size=10_240, tag="5d41402a")])

    Args:
        cache: The cache of what is read from object storage; None reads everything each time.
        pauses: Seconds before each next attempt; None takes 0.5, 2 and 5.
    """

    def __init__(self, cache: ObjectCache | None = None, *, pauses: Sequence[float] | None = None) -> None:
        self.cache = cache
        self._pauses = _PAUSES if pauses is None else tuple(pauses)

    def read(self, ranges: Sequence[ByteRange]) -> list[bytes]:
        """Returns the bytes of ranges, in order.

        Args:
            ranges: The ranges, of any objects.

        Raises:
            ChangedObjectError: If an object is missing, or of another size or version than its range says.
            StorageError: If object storage refuses, or does not answer after several attempts.
        """
        found: list[bytes | None] = [None] * len(ranges)
        missing = []
        for place, each in enumerate(ranges):
            if each.stop <= each.start:
                found[place] = b""
            elif not is_remote(each.place):
                found[place] = self._local(each)
            elif self.cache is not None and (content := self.cache.get(each.key, each.stop - each.start)):
                found[place] = content
            else:
                missing.append(place)
        requests = _merged(ranges, missing)
        for (whole, places), content in zip(
            requests, self._remote([each for each, _ in requests]), strict=True
        ):
            for place in places:
                each = ranges[place]
                part = (
                    content if each == whole else content[each.start - whole.start : each.stop - whole.start]
                )
                found[place] = part
                if self.cache is not None:
                    self.cache.put(each.key, part)
        return [each for each in found if each is not None]

    def requests(self, ranges: Sequence[ByteRange]) -> list[ByteRange]:
        """Returns the requests to object storage that `read` sends if the cache is empty.

        Args:
            ranges: The ranges, of any objects; local files need no request.
        """
        places = [
            place for place, each in enumerate(ranges) if each.stop > each.start and is_remote(each.place)
        ]
        return [whole for whole, _ in _merged(ranges, places)]

    def _local(self, each: ByteRange) -> bytes:
        """Returns a range of a local file."""
        for pause in (*self._pauses, None):
            try:
                with open(each.place, "rb", buffering=0) as file:
                    _check(each, (status := os.fstat(file.fileno())).st_size, local_tag(status))
                    file.seek(each.start)
                    return _complete(file.read(each.stop - each.start), each)
            except FileNotFoundError:
                raise ChangedObjectError(each.place, "is missing") from None
            except OSError as error:
                if pause is None or not is_passing(error):
                    raise storage_error(each.place, error, len(self._pauses) + 1) from error
                time.sleep(pause)
        raise AssertionError

    def _remote(self, ranges: list[ByteRange]) -> list[bytes]:
        """Returns ranges of objects, many at a time.

        A failed one ends the others soon; its error is raised.
        """
        if not ranges:
            return []
        systems = {kind: connection(kind) for kind in {protocol_and_path(each.place)[0] for each in ranges}}
        read = {kind: _request_of(kind, system) for kind, system in systems.items()}
        kinds = [protocol_and_path(each.place)[0] for each in ranges]
        if all(inspect.iscoroutinefunction(read[kind]) for kind in kinds):
            loop = systems[kinds[0]].loop
            found = fsspec.asyn.sync(loop, self._gathered, [read[kind] for kind in kinds], ranges)
            return [*(found or ())]
        attempts = functools.partial(_attempt, pauses=self._pauses)
        return [*_threads(os.getpid()).map(attempts, [read[kind] for kind in kinds], ranges)]

    async def _gathered(self, reads: list[Callable[..., Awaitable[bytes]]], ranges: list[ByteRange]) -> list:
        tasks = [
            asyncio.ensure_future(_attempt_async(read, each, self._pauses))
            for read, each in zip(reads, ranges, strict=True)
        ]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()


def attempted(place: str, call: Callable[[], Any], pauses: Sequence[float] | None = None) -> Any:
    """Returns the result of a call that uses object storage, which is tried again like a read.

    Args:
        place: The address, for the error.
        call: The call.
        pauses: Seconds before each next attempt; None takes those of `RangeReader`.

    Raises:
        FileNotFoundError: If there is no such object.
        StorageError: If object storage refuses, or does not answer after several attempts.
    """
    pauses = _PAUSES if pauses is None else pauses
    for pause in (*pauses, None):
        try:
            return call()
        except FileNotFoundError:
            raise
        except Exception as error:
            if is_full(error):
                raise
            if pause is None or not is_passing(error):
                raise storage_error(place, error, len(pauses) + 1) from error
            time.sleep(pause * random.uniform(0.5, 1.5))
    raise AssertionError


def connection(kind: str) -> Any:
    """Returns the fsspec file system of a protocol, one for each process, with enough connections.

    Args:
        kind: `s3` or `gs`.

    Raises:
        StorageError: If its package is not installed.
    """
    options = {}
    if kind == "s3":
        timeouts = {"connect_timeout": 20, "read_timeout": _SECONDS}
        options = {"config_kwargs": {"max_pool_connections": 2 * IN_FLIGHT, **timeouts}}
    try:
        return fsspec.filesystem(kind, **options)
    except (ImportError, OSError) as error:  # Credentials may be read here.
        raise storage_error(f"{kind}://", error) from error


def version_tag(kind: str, info: dict[str, Any]) -> str:
    """Returns the `tag` of an object, as `ByteRange` has it, from what a listing says of it."""
    if kind == "gs" and info.get("generation"):
        return str(info["generation"])
    return str(info.get("ETag") or info.get("etag") or info.get("mtime") or "").strip('"')


def _merged(ranges: Sequence[ByteRange], places: Iterable[int]) -> list[tuple[ByteRange, list[int]]]:
    """Returns ranges that contain others which are close to each other, and the places of these."""
    found: list[tuple[ByteRange, list[int]]] = []
    for place in sorted(places, key=lambda place: ranges[place]):
        each = ranges[place]
        if found:
            last, inside = found[-1]
            stop = max(last.stop, each.stop)
            same = (last.place, last.size, last.tag) == (each.place, each.size, each.tag)
            if same and each.start - last.stop <= GAP and stop - last.start <= _MERGED:
                found[-1] = (last._replace(stop=stop), [*inside, place])
                continue
        found.append((each, [place]))
    return found


def _request_of(kind: str, system: Any) -> Callable[..., Any]:
    """Returns the function that reads a range with a file system; a coroutine function if it has any."""
    if kind == "s3" and hasattr(system, "_call_s3"):
        return functools.partial(_from_signed_s3 if can_sign(system) else _from_s3, system)
    if kind == "gs" and hasattr(system, "_call") and hasattr(system, "url"):
        return functools.partial(_from_gs, system)
    return functools.partial(_from_any, system, kind)


async def _from_signed_s3(system: Any, each: ByteRange) -> bytes:
    bucket, _, name = protocol_and_path(each.place)[1].partition("/")
    whole = (each.start, each.stop) == (0, each.size)
    headers = {} if whole else {"Range": f"bytes={each.start}-{each.stop - 1}"}
    if each.tag:
        headers["If-Match"] = f'"{each.tag}"'
    status, found, content = await get_signed(system, bucket, name, headers, _SECONDS)
    if status == 412:
        raise ChangedObjectError(each.place, "has another etag than in the index")
    if status == 416:
        raise ChangedObjectError(each.place, "is shorter than in the index")
    if status not in (200, 206):  # The words of an error are those of s3fs.
        return await _from_s3(system, each)
    _check_length(each, found.get("Content-Range"), len(content), not whole)
    return _complete(content, each)


async def _from_s3(system: Any, each: ByteRange) -> bytes:
    bucket, _, name = protocol_and_path(each.place)[1].partition("/")
    condition = {"IfMatch": f'"{each.tag}"'} if each.tag else {}
    limits = (
        {} if (each.start, each.stop) == (0, each.size) else {"Range": f"bytes={each.start}-{each.stop - 1}"}
    )
    try:
        answer = await system._call_s3("get_object", Bucket=bucket, Key=name, **limits, **condition)
    except FileExistsError:  # As s3fs translates a condition that does not hold.
        raise ChangedObjectError(each.place, "has another etag than in the index") from None
    except OSError as error:
        if "PreconditionFailed" in str(error) or "pre-condition" in str(error).lower():
            raise ChangedObjectError(each.place, "has another etag than in the index") from None
        if "InvalidRange" in str(error) or "range not satisfiable" in str(error).lower():
            raise ChangedObjectError(each.place, "is shorter than in the index") from None
        raise
    body = answer["Body"]
    try:
        _check_length(each, answer.get("ContentRange"), answer.get("ContentLength"), bool(limits))
        return _complete(await body.read(), each)
    finally:
        body.close()


async def _from_gs(system: Any, each: ByteRange) -> bytes:
    path = protocol_and_path(each.place)[1]
    whole = (each.start, each.stop) == (0, each.size)
    limits = {} if whole else {"Range": f"bytes={each.start}-{each.stop - 1}"}
    headers, content = await system._call("GET", system.url(path), headers=limits)
    generation = headers.get("x-goog-generation")
    if generation is not None and each.tag.isdigit() and generation != each.tag:
        raise ChangedObjectError(each.place, "has another generation than in the index")
    _check_length(each, headers.get("Content-Range"), len(content), not whole)
    return _complete(content, each)


def _from_any(system: Any, kind: str, each: ByteRange) -> bytes:
    path = protocol_and_path(each.place)[1]
    info = system.info(path)
    _check(each, info["size"], version_tag(kind, info))
    return _complete(system.cat_file(path, start=each.start, end=each.stop), each)


def _check(each: ByteRange, size: int, tag: str) -> None:
    if size != each.size:
        raise ChangedObjectError(each.place, f"has {size:,} bytes, and {each.size:,} in the index")
    if each.tag and tag and tag != each.tag:
        raise ChangedObjectError(each.place, "was changed after it was indexed")


def _check_length(each: ByteRange, content_range: str | None, length: int | None, is_range: bool) -> None:
    """Compares the size of an object with what an answer says of it."""
    total = content_range.rpartition("/")[2] if content_range else ""
    if total.isdigit():
        _check(each, int(total), "")
    elif not is_range and length is not None:
        _check(each, length, "")


def _complete(content: bytes, each: ByteRange) -> bytes:
    """Returns the content of a range.

    Raises:
        ConnectionError: If bytes are missing.
    """
    if len(content) != each.stop - each.start:
        raise ConnectionError(f"{len(content):,} of {each.stop - each.start:,} bytes were received")
    return content


def _attempt(read: Callable[[ByteRange], bytes], each: ByteRange, pauses: Sequence[float]) -> bytes:
    for pause in (*pauses, None):
        try:
            return read(each)
        except Exception as error:
            if pause is None or not is_passing(error):
                raise _explained(each, error, len(pauses) + 1) from error
            time.sleep(pause * random.uniform(0.5, 1.5))
    raise AssertionError


async def _attempt_async(
    read: Callable[..., Awaitable[bytes]], each: ByteRange, pauses: Sequence[float]
) -> bytes:
    limit = _SECONDS + (each.stop - each.start) / _BYTES_PER_SECOND
    for pause in (*pauses, None):
        try:
            async with _slots(os.getpid()):
                return await asyncio.wait_for(read(each), limit)
        except Exception as error:
            if pause is None or not is_passing(error):
                raise _explained(each, error, len(pauses) + 1) from error
        await asyncio.sleep(pause * random.uniform(0.5, 1.5))
    raise AssertionError


def _explained(each: ByteRange, error: Exception, attempts: int) -> StorageError:
    if isinstance(error, FileNotFoundError):
        return ChangedObjectError(each.place, "is missing")
    return storage_error(each.place, error, attempts)


@functools.cache
def _slots(process: int) -> asyncio.Semaphore:
    """Returns the limit of requests at a time; fsspec has one event loop for each process."""
    return asyncio.Semaphore(IN_FLIGHT)


@functools.cache
def _threads(process: int) -> concurrent.futures.ThreadPoolExecutor:
    """Returns the threads that read with a file system without coroutines."""
    return concurrent.futures.ThreadPoolExecutor(IN_FLIGHT // 2, "range_reads")
