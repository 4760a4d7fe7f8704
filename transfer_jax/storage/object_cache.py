"""A local folder of objects and byte ranges from object storage, bounded in size and shared by processes.

Each entry is a file that is complete or missing, so that a process may be killed at any moment. A journal has
the size of each new entry; the eviction, which holds a lock, counts the files and replaces it.
"""

import contextlib
import errno
import hashlib
import logging
import os
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from transfer_jax.storage.file_lock import file_lock
from transfer_jax.user_cache import user_cache

FOLDER = "TRANSFER_JAX_OBJECTS"
"""The environment variable of the folder; the default is `~/.cache/transfer_jax/objects`."""
GIGABYTES = "TRANSFER_JAX_OBJECT_GIGABYTES"
"""The environment variable of the limit in units of 10^9 bytes."""
DEFAULT_GIGABYTES = 20.0
"""The limit without the variable."""
_FREE = 2**30
"""Bytes of the disk that are left free."""
_BLOCK = 4096
"""Bytes of the disk that the smallest file takes."""
_REMAINING = 0.9
"""The fraction of the limit that an eviction leaves, so that evictions are rare."""
_ABANDONED_SECONDS = 3600.0
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EFBIG}
_logger = logging.getLogger(__name__)


class ObjectCache:
    """Files by key, of which the least recently used ones are deleted beyond a limit.

    All threads and processes of a machine share the folder. A cache that cannot be written (a full disk, a
    read-only folder) logs a warning once; then everything is read from object storage. It can be pickled.

    Example:
        >>> cache = ObjectCache()
        >>> cache.put("s3://bucket/cat.jpg 5d41402a 0-5", b"image")
        True
        >>> cache.get("s3://bucket/cat.jpg 5d41402a 0-5", size=5)
        b'image'

    Attributes:
        folder: The folder.
        limit: The largest size of all entries in bytes. One entry for each thread that writes may exceed it
            for a moment.

    Args:
        folder: The folder; None takes that of `TRANSFER_JAX_OBJECTS`.
        gigabytes: The limit in units of 10^9 bytes; None takes `TRANSFER_JAX_OBJECT_GIGABYTES`, or 20. 0
            keeps nothing.

    Raises:
        ValueError: If the limit is no number of at least 0.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None, gigabytes: float | None = None) -> None:
        self.folder = Path(folder or os.environ.get(FOLDER) or user_cache("objects")).expanduser().absolute()
        self.limit = int((_gigabytes() if gigabytes is None else _checked(gigabytes, "gigabytes")) * 1e9)
        self._entries, self._unfinished = self.folder / "entries", self.folder / "unfinished"
        self._journal = self.folder / "journal"
        self._prepare()

    def _prepare(self) -> None:
        """Sets what one process has for itself."""
        self._lock = threading.Lock()
        self._seen = (0, 0, 0)  # Inode and bytes of the journal that were read, and their sum.
        self._cleaned = self._warned = False
        self._made: set[str] = set()

    def __getstate__(self) -> dict[str, object]:
        return {"folder": self.folder, "limit": self.limit}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__init__(str(state["folder"]), 0.0)
        self.limit = int(str(state["limit"]))

    def get(self, key: str, size: int) -> bytes | None:
        """Returns an entry, and marks it as used; None if it is missing.

        Args:
            key: Any text that names the content, such as address, tag and range of an object.
            size: Its number of bytes. A file of another size, as after a power failure, counts as missing.
        """
        try:
            with open(self._path(key), "rb") as file:
                content = file.read()
                if len(content) != size:
                    return None
                os.utime(file.fileno() if os.utime in os.supports_fd else file.name)
                return content
        except OSError:
            return None

    def find(self, key: str) -> bytes | None:
        """Returns an entry of unknown size, as `get`; an empty file counts as missing."""
        path = self._path(key)
        with contextlib.suppress(OSError):
            return self.get(key, path.stat().st_size) or None
        return None

    def put(self, key: str, content: bytes) -> bool:
        """Adds an entry, after deleting the least recently used ones if needed.

        Args:
            key: As for `get`.
            content: The bytes.

        Returns:
            False if it is not kept: it is larger than the limit, or the disk is full.
        """
        return self.add(key, len(content), lambda file: file.write_bytes(content)) is not None

    def path(self, key: str, size: int) -> Path | None:
        """Returns the file of an entry, and marks it as used; None if it is missing.

        Another process may delete the file at any moment; one that is open stays readable.

        Args:
            key: As for `get`.
            size: As for `get`.
        """
        path = self._path(key)
        with contextlib.suppress(OSError):
            if path.stat().st_size == size:
                os.utime(path)
                return path
        return None

    def add(self, key: str, size: int, write: Callable[[Path], object]) -> Path | None:
        """Adds an entry that a function writes, such as a download, and returns its file.

        Args:
            key: As for `get`.
            size: Its number of bytes, for which space is made before.
            write: Writes the content to a path that does not exist. Its errors are raised, and nothing is
                added.

        Returns:
            The file; None if it is not kept, as in `put`. The disk may be full in spite of the check; then
            it is None, too.

        Raises:
            ValueError: If the function writes another number of bytes.
        """
        if not self._make_room(size):
            return None
        path, unfinished = self._path(key), self._unfinished / f"{os.getpid()}-{secrets.token_hex(6)}"
        try:
            if path.parent.name not in self._made:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._made.add(path.parent.name)
            write(unfinished)
            if (written := unfinished.stat().st_size) != size:
                raise ValueError(f"{key.partition(' ')[0]}: {written:,} bytes were read, expected {size:,}")
            os.replace(unfinished, path)
            self._record(size)
        except OSError as error:
            if error.errno not in _FULL:
                raise
            self._warn(f"{error.strerror or error}")
            return None
        finally:
            with contextlib.suppress(OSError):
                unfinished.unlink(missing_ok=True)
        return path

    def remove(self, key: str) -> None:
        """Deletes an entry if it exists, such as one with a wrong checksum."""
        with contextlib.suppress(OSError):
            self._path(key).unlink()

    def size(self) -> int:
        """Returns the sum of the sizes of all entries in bytes; each counts as at least one block."""
        return sum(size for _, size, _ in self._files())

    def _path(self, key: str) -> Path:
        name = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
        return self._entries / name[:2] / name[2:]

    def _make_room(self, size: int) -> bool:
        """Deletes the least recently used entries if a new one does not fit, and returns whether it fits."""
        needed = max(size, _BLOCK)
        if needed > self.limit:
            return False
        try:
            if not self._cleaned:
                self._clean()
            if self._total() + needed <= self.limit and self._is_free(needed):
                return True
            with self._lock, file_lock(self.folder / "lock"):
                if self._total() + needed > self.limit or not self._is_free(needed):
                    self._evict(needed)
                if self._is_free(needed):
                    return True
        except OSError as error:
            if error.errno not in _FULL:
                raise
            self._warn(error.strerror or str(error))
            return False
        self._warn(f"less than {(needed + _FREE) / 1e9:.1f} GB are free on its disk")
        return False

    def _is_free(self, needed: int) -> bool:
        return needed + _FREE <= shutil.disk_usage(self.folder).free

    def _evict(self, needed: int) -> None:
        """Deletes the least recently used entries, and writes a new journal. The caller holds the lock."""
        found = sorted(self._files())
        total = sum(size for _, size, _ in found)
        wanted = max(self.limit * _REMAINING - needed, 0)
        lacking = needed + _FREE - shutil.disk_usage(self.folder).free
        for _, size, path in found:
            if total <= wanted and lacking <= 0:
                break
            with contextlib.suppress(OSError):
                os.unlink(path)
            total, lacking = total - size, lacking - size
        unfinished = self._unfinished / f"journal-{secrets.token_hex(6)}"
        unfinished.write_text(f"{total}\n")
        os.replace(unfinished, self._journal)

    def _record(self, size: int) -> None:
        """Appends the size of a new entry to the journal; a short line is written at once, or not at all."""
        opened = os.open(self._journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            os.write(opened, b"%d\n" % max(size, _BLOCK))
        finally:
            os.close(opened)

    def _total(self) -> int:
        """Returns the sum of the sizes in the journal, of which only new lines are read."""
        try:
            with open(self._journal, "rb") as file:
                inode, read, total = self._seen
                status = os.fstat(file.fileno())
                if status.st_ino != inode or status.st_size < read:
                    read = total = 0
                if status.st_size > read:
                    file.seek(read)
                    lines = file.read(status.st_size - read)
                    complete = lines.rfind(b"\n") + 1
                    total += sum(int(line) for line in lines[:complete].split() if line.isdigit())
                    read += complete
                self._seen = (status.st_ino, read, total)
                return total
        except FileNotFoundError:
            return 0

    def _clean(self) -> None:
        """Creates the folders, and deletes what killed processes left."""
        self._entries.mkdir(parents=True, exist_ok=True)
        self._unfinished.mkdir(exist_ok=True)
        for path in self._unfinished.iterdir():
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
                    path.unlink()
        self._cleaned = True

    def _files(self) -> Iterator[tuple[float, int, str]]:
        """Yields the time of use, the size and the path of each entry."""
        for folder in self._entries.glob("[0-9a-f][0-9a-f]"):
            with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
                for entry in entries:
                    with contextlib.suppress(FileNotFoundError):
                        status = entry.stat()
                        yield status.st_mtime, max(status.st_size, _BLOCK), entry.path

    def _warn(self, reason: str) -> None:
        if not self._warned:
            self._warned = True
            _logger.warning(
                "%s keeps no more objects (%s); they are read from object storage each time. Free space, or "
                "set %s to a folder on another disk",
                self.folder,
                reason,
                FOLDER,
            )


def _gigabytes() -> float:
    text = os.environ.get(GIGABYTES)
    return DEFAULT_GIGABYTES if not text else _checked(text, GIGABYTES)


def _checked(value: object, name: str) -> float:
    try:
        number = float(str(value))
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise ValueError(f"{name} must be a number of at least 0, got {value!r}")
    return number
