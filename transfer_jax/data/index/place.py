"""The place of an index: a folder beside the data, in a bucket or on a disk, or in the user's cache."""

import contextlib
import dataclasses
import hashlib
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transfer_jax.storage.atomic_write import replaced_atomically
from transfer_jax.storage.range_reads import attempted
from transfer_jax.storage.remote import bucket_folder, is_remote, local_path, protocol_and_path
from transfer_jax.user_cache import can_create, user_cache

INDEX_FOLDER = ".transfer_jax_index"
"""Name of the hidden folder of indexes beside the data. Readers of folders skip hidden folders."""
_NAME = 16
"""Number of hexadecimal digits in the name of an index's folder."""


class NotWritableError(OSError):
    """A bucket does not accept objects."""


@dataclasses.dataclass(frozen=True)
class IndexPlace:
    """The folder of one index.

    Attributes:
        folder: The local folder; for an index in a bucket, a copy of it.
        system: The fsspec file system of the bucket; None for a local index.
        path: The path in the bucket, without the protocol.
    """

    folder: Path
    system: Any = None
    path: str = ""

    def local(self) -> "IndexPlace":
        """Returns the place on this machine only."""
        return IndexPlace(self.folder)

    def names(self, folder: str) -> set[str]:
        """Returns the names of the complete files in a folder of the index."""
        if self.system is None:
            with contextlib.suppress(FileNotFoundError):
                return {name for name in os.listdir(self.folder / folder) if not name.startswith(".")}
            return set()

        def listed() -> list[str]:
            self.system.invalidate_cache()
            return self.system.ls(self._at(folder), detail=False)

        with contextlib.suppress(FileNotFoundError):
            return {str(each).rpartition("/")[2] for each in attempted(self._address(folder), listed)}
        return set()

    def load(self, name: str, size: int | None = None) -> Path:
        """Returns the local path of a file, which is downloaded from a bucket if it is not there.

        Args:
            name: The name of the file, relative to the index.
            size: Its size in bytes, if its content is fixed; None downloads it again.

        Raises:
            FileNotFoundError: If there is no such file.
            StorageError: If object storage is not readable.
        """
        file = self.folder / name
        if self.system is None:
            return file
        if size is not None and file.is_file() and file.stat().st_size == size:
            return file
        file.parent.mkdir(parents=True, exist_ok=True)
        with replaced_atomically(file) as unfinished:
            attempted(self._address(name), lambda: self.system.get_file(self._at(name), str(unfinished)))
        return file

    def save(self, name: str, write: Callable[[Path], object]) -> None:
        """Writes a file atomically, also into the bucket.

        Args:
            name: The name of the file, relative to the index.
            write: A function that writes it, given the path of a temporary file.

        Raises:
            NotWritableError: If the bucket does not accept it. It is written on this machine nevertheless.
        """
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        with replaced_atomically(file) as unfinished:
            write(unfinished)
        if self.system is None:
            return
        try:
            self.system.put_file(str(file), self._at(name))
        except Exception as error:  # Each file system has errors of its own.
            raise NotWritableError(f"{self._address(name)} is not writable: {error}") from error

    def delete(self, name: str) -> None:
        """Deletes a file or a folder of the index, if it exists."""
        file = self.folder / name
        if file.is_file():
            file.unlink(missing_ok=True)
        else:
            shutil.rmtree(file, ignore_errors=True)
        if self.system is not None:
            with contextlib.suppress(Exception):  # Each file system has errors of its own.
                self.system.rm(self._at(name), recursive=True)

    def delete_old(self, keep: str, days: float = 1.0) -> None:
        """Deletes contents of earlier indexes; those of the last day may be in use by other machines.

        Args:
            keep: Name of the folder of the contents in use.
            days: The smallest age of what is deleted.
        """
        for name in self.names("."):
            file = self.folder / name
            with contextlib.suppress(OSError):
                old = file.is_dir() and time.time() - file.stat().st_mtime > days * 86_400
                if old and name not in (keep, "parts"):
                    self.delete(name)

    def _address(self, name: str) -> str:
        return self.system.unstrip_protocol(self._at(name))

    def _at(self, name: str) -> str:
        return f"{self.path}/{name}".rstrip("/.")


def index_place(beside: str | os.PathLike[str], name: str, *, make: bool = True) -> IndexPlace:
    """Returns the place of an index: in the data's folder if it is writable, otherwise in the user's cache.

    Args:
        beside: The folder of the data, or an address in object storage.
        name: A text that distinguishes the indexes of a folder, such as the kind, the split and the columns.
        make: Whether to create the hidden folder, so that the folder of the data does not change later.
    """
    if is_remote(beside):  # The same folder may be on a disk too, such as a mounted bucket.
        name = f"{protocol_and_path(beside)[0]} {name}"
    own = hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()[:_NAME]
    if is_remote(beside):
        copy = local_path(f"{os.fspath(beside).rstrip('/')}/{INDEX_FOLDER}/{own}", shared=True)
        found = bucket_folder(copy)
        assert found is not None
        return IndexPlace(copy, *found)
    folder = Path(beside).resolve()
    hidden = folder / INDEX_FOLDER
    if can_create(hidden / own):
        with contextlib.suppress(OSError):
            if make:
                hidden.mkdir(exist_ok=True)
            return IndexPlace(hidden / own)
    apart = hashlib.sha256(f"{folder}\0{name}".encode(errors="surrogateescape")).hexdigest()[:_NAME]
    return IndexPlace(user_cache("index") / apart)
