"""The files of one feature cache, in a local folder or directly in object storage.

A file is complete or missing in both. Its SHA-256 is computed while it is written, so that no byte is read
again.
"""

import concurrent.futures
import contextlib
import datetime
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Protocol, cast

from transfer_jax.storage.atomic_write import replaced_atomically, sha256
from transfer_jax.storage.object_cache import ObjectCache
from transfer_jax.storage.remote import bucket_folder, display_path

FILE = "manifest.json"
"""Name of the manifest in the folder of a cache."""
_USED = "used.json"
"""Name of the object whose time is that of the last use of a cache in object storage."""
_NAME = r"(shard-[0-9]+|labels|manifest|used)(\.note)?\.(npy|json)"
_FILE = re.compile(rf"{_NAME}|\.{_NAME}\.[a-z0-9_]{{8}}(\.tmp)?")
"""The names of the files of a cache, and those of temporary files of this version and of earlier ones."""
_REQUESTS = 32
"""Requests to object storage at a time."""


class CacheFiles(Protocol):
    """The files of one cache by name. Foreign files in its folder are not among them."""

    def names(self) -> list[str]:
        """Returns the names of all complete files, sorted."""
        ...

    def sizes(self) -> dict[str, int]:
        """Returns the sizes of these files in bytes, by name."""
        ...

    def read(self, name: str) -> bytes:
        """Returns the content of a file.

        Raises:
            FileNotFoundError: If there is no such file.
        """
        ...

    def read_all(self, names: Sequence[str]) -> dict[str, bytes]:
        """Returns the contents of files by name, without those that another process has deleted."""
        ...

    def writing(self, name: str) -> "contextlib.AbstractContextManager[HashedFile]":
        """Yields an open file, which becomes the file of this name when the context ends without an error."""
        ...

    def delete(self, names: Iterable[str]) -> None:
        """Deletes files, one after the other in this order where it matters; missing ones are no error."""
        ...

    def damaged(self, hashes: Mapping[str, str], sizes: Mapping[str, int]) -> list[str]:
        """Returns the names of the files that are missing or damaged.

        Locally all bytes are read. Object storage guards its bytes itself: there the size is compared, and a
        shard is compared with its hash when it is downloaded.

        Args:
            hashes: SHA-256 of each file.
            sizes: The least size of files in bytes, those for which it is known.
        """
        ...

    def mark_used(self) -> None:
        """Sets the time of last use to now, if the storage is writable."""
        ...

    def last_use(self) -> float:
        """Returns the time of last use in seconds; 0 if the cache is being deleted."""
        ...


class HashedFile:
    """A binary file whose SHA-256 is computed while it is written.

    Args:
        file: The open file.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._hash = hashlib.sha256()

    def write(self, data: Any) -> int:
        """Writes bytes at the end of the file."""
        self._hash.update(data)
        return self._file.write(data)

    def flush(self) -> None:
        """Passes all bytes so far to the system."""
        self._file.flush()

    @property
    def sha256(self) -> str:
        """The SHA-256 of all bytes so far, in hexadecimal digits."""
        return self._hash.hexdigest()


def open_files(directory: Path) -> CacheFiles:
    """Returns the files of the cache in a folder, which may be the local copy of one in object storage."""
    found = bucket_folder(directory)
    return LocalFiles(directory) if found is None else BucketFiles(directory, *found)


def shard_key(sha: str) -> str:
    """Returns the key of a shard in an `ObjectCache`."""
    return f"features {sha}"


def folders(root: Path) -> list[str]:
    """Returns the names of the folders with a manifest in a folder of caches, sorted."""
    found = bucket_folder(root)
    if found is None:
        return sorted(path.parent.name for path in root.glob(f"*/{FILE}"))
    system, path = found
    system.invalidate_cache()
    with _named(root), contextlib.suppress(FileNotFoundError):
        names = [each.rstrip("/").rsplit("/", 1)[-1] for each in system.ls(path, detail=False)]
        return sorted(name for name in names if system.exists(f"{path}/{name}/{FILE}"))
    return []


def is_cache_file(name: str) -> bool:
    """Returns True for the names of files of a cache, including temporary ones."""
    return _FILE.fullmatch(name) is not None


def write(files: CacheFiles, name: str, save: Callable[[Any], object]) -> str:
    """Writes a file with a function of an open file, and returns its SHA-256."""
    with files.writing(name) as file:
        save(file)
    return file.sha256


class LocalFiles:
    """The files of a cache in a local folder.

    Args:
        directory: The folder.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def names(self) -> list[str]:
        found = os.listdir(self._directory) if self._directory.is_dir() else ()
        return sorted(name for name in found if is_cache_file(name) and not name.startswith("."))

    def sizes(self) -> dict[str, int]:
        return {name: (self._directory / name).stat().st_size for name in self.names()}

    def read(self, name: str) -> bytes:
        return (self._directory / name).read_bytes()

    def read_all(self, names: Sequence[str]) -> dict[str, bytes]:
        found = {}
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                found[name] = self.read(name)
        return found

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[HashedFile]:
        self._directory.mkdir(parents=True, exist_ok=True)
        with replaced_atomically(self._directory / name) as unfinished, unfinished.open("wb") as file:
            yield HashedFile(file)

    def delete(self, names: Iterable[str]) -> None:
        for name in names:
            (self._directory / name).unlink(missing_ok=True)

    def damaged(self, hashes: Mapping[str, str], sizes: Mapping[str, int]) -> list[str]:
        del sizes
        paths = {name: self._directory / name for name in hashes}
        return [name for name, path in paths.items() if not path.is_file() or sha256(path) != hashes[name]]

    def mark_used(self) -> None:
        with contextlib.suppress(OSError):
            os.utime(self._directory / FILE)

    def last_use(self) -> float:
        try:
            return (self._directory / FILE).stat().st_mtime_ns / 1e9
        except FileNotFoundError:
            return 0.0


class BucketFiles:
    """The files of a cache in object storage.

    Args:
        directory: Its local copy, in which a file is written before it is uploaded.
        system: The fsspec file system.
        path: The path in object storage, without the protocol.
    """

    def __init__(self, directory: Path, system: Any, path: str) -> None:
        self.directory = directory
        self._system = system
        self._path = path
        self._objects = ObjectCache()

    def names(self) -> list[str]:
        return sorted(self.sizes())

    def sizes(self) -> dict[str, int]:
        """Returns the sizes of all files in bytes, by name."""
        self._system.invalidate_cache()
        with _named(self.directory):
            found = self._system.find(self._path, maxdepth=1, detail=True)
        names = {path.rsplit("/", 1)[-1]: info["size"] for path, info in found.items()}
        return {name: size for name, size in names.items() if is_cache_file(name)}

    def read(self, name: str, start: int | None = None, end: int | None = None) -> bytes:
        """Returns the content of an object, or a range of its bytes."""
        with _named(self.directory / name):
            return self._system.cat_file(f"{self._path}/{name}", start=start, end=end)

    def size(self, name: str) -> int:
        """Returns the size of an object in bytes."""
        with _named(self.directory / name):
            return self._system.size(f"{self._path}/{name}")

    def download(self, name: str, to: Path) -> None:
        """Downloads an object into a local file."""
        with _named(self.directory / name):
            self._system.get_file(f"{self._path}/{name}", str(to))

    def read_all(self, names: Sequence[str]) -> dict[str, bytes]:
        def found(name: str) -> bytes | None:
            with contextlib.suppress(FileNotFoundError):
                return self.read(name)
            return None

        with concurrent.futures.ThreadPoolExecutor(_REQUESTS) as pool:
            return {
                name: each
                for name, each in zip(names, pool.map(found, names), strict=True)
                if each is not None
            }

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[HashedFile]:
        self.directory.mkdir(parents=True, exist_ok=True)
        # An object is complete or missing; the local file needs to survive nothing.
        unfinished = self.directory / f".{name}.{os.urandom(4).hex()}.tmp"
        try:
            with unfinished.open("wb") as file:
                hashed = HashedFile(file)
                yield hashed
            with _named(self.directory / name):
                self._system.put_file(str(unfinished), f"{self._path}/{name}")
            if name.startswith("shard"):  # This process is likely to read it.
                self._objects.add(
                    shard_key(hashed.sha256),
                    unfinished.stat().st_size,
                    lambda path: shutil.move(unfinished, path),
                )
        finally:
            unfinished.unlink(missing_ok=True)

    def delete(self, names: Iterable[str]) -> None:
        names = list(names)
        if FILE in names:  # First: a folder without a manifest is no cache.
            self._delete(FILE)
        with concurrent.futures.ThreadPoolExecutor(_REQUESTS) as pool:
            list(pool.map(self._delete, [name for name in names if name != FILE]))

    def _delete(self, name: str) -> None:
        with _named(self.directory / name), contextlib.suppress(FileNotFoundError):
            self._system.rm_file(f"{self._path}/{name}")

    def damaged(self, hashes: Mapping[str, str], sizes: Mapping[str, int]) -> list[str]:
        found = self.sizes()
        return [name for name in hashes if name not in found or found[name] < sizes.get(name, 0)]

    def mark_used(self) -> None:
        with contextlib.suppress(OSError):
            self._system.pipe_file(f"{self._path}/{_USED}", b"{}")

    def last_write(self) -> float:
        """Returns the time of the newest object in seconds; 0 if there is none."""
        self._system.invalidate_cache()
        with _named(self.directory):
            found = self._system.find(self._path, detail=True)
        return max(map(_time, found.values()), default=0.0)

    def last_use(self) -> float:
        self._system.invalidate_cache()
        times = []
        for name in (_USED, FILE):
            with contextlib.suppress(FileNotFoundError):
                times.append(self._system.modified(f"{self._path}/{name}").timestamp())
        return max(times, default=0.0)


def _time(info: Mapping[str, Any]) -> float:
    """Returns the time of an object of S3, of Google Cloud Storage or of a disk in seconds."""
    found = info.get("LastModified") or info.get("mtime") or info.get("updated") or 0.0
    if isinstance(found, str):
        found = datetime.datetime.fromisoformat(found)
    return found.timestamp() if isinstance(found, datetime.datetime) else float(found)


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Adds the address of an object to the errors of object storage, such as a missing permission."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        kind = cast(type[OSError], PermissionError if isinstance(error, PermissionError) else OSError)
        raise kind(f"{display_path(path)}: {error or type(error).__name__}") from error
