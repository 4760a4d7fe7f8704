"""Ranges of bytes of objects, and the errors of object storage."""

import errno
import os
from typing import NamedTuple

from transfer_jax.storage.remote import is_remote

INDEX_AGAIN = "the index describes other data; start again to index it again"
"""The advice for an object that is not as its index says."""


class ByteRange(NamedTuple):
    """Some bytes of an object or a local file, as an index knows it.

    Attributes:
        place: The address (`s3://bucket/name`, `gs://bucket/name`), or the path of a local file.
        start: Position of the first byte.
        stop: Position after the last byte.
        size: Number of bytes of the whole object.
        tag: The version of the object: its etag in S3, its generation in Google Cloud Storage, the time of
            modification in nanoseconds of a local file. An empty text compares sizes only.
    """

    place: str
    start: int
    stop: int
    size: int
    tag: str = ""

    @property
    def key(self) -> str:
        """The key of the bytes in an `ObjectCache`."""
        return f"{self.place} {self.size} {self.tag} {self.start}-{self.stop}"


class StorageError(RuntimeError):
    """Object storage does not answer, refuses, or has other data than an index says.

    One line names the object. It is no error of an image: a run that skips unreadable images stops at it.
    """


class ChangedObjectError(StorageError):
    """An object is not the one that was indexed.

    Attributes:
        place: The address of the object.
        change: The difference, such as "is missing".
        advice: The next step for the user.
    """

    def __init__(self, place: str, change: str, advice: str = INDEX_AGAIN) -> None:
        super().__init__(f"{place} {change}: {advice}")
        self.place, self.change, self.advice = place, change, advice

    def __reduce__(self) -> tuple:
        return ChangedObjectError, (self.place, self.change, self.advice)


def storage_error(place: str, error: BaseException, attempts: int = 1) -> StorageError:
    """Returns the error of an object in one line, with what to do.

    Args:
        place: The address of the object or folder.
        error: The error of the file system.
        attempts: How often it was tried.
    """
    if isinstance(error, StorageError):
        return error
    text = " ".join(str(error).split()) or type(error).__name__
    text = text if len(text) <= 300 else text[:300] + " ..."
    if is_permission(error) and not is_remote(place):
        return StorageError(f"no permission to read {place}; change its permissions")
    if is_permission(error):
        return StorageError(
            f"no permission to read {place}: {text}; log in to this storage on this machine, or "
            "get read access"
        )
    if isinstance(error, ImportError):
        return StorageError(f"{place} needs {text}: pip install 'transfer_jax[remote]'")
    if isinstance(error, FileNotFoundError):
        return StorageError(f"{place} does not exist; check the address")
    tried = f" after {attempts} attempts" if attempts > 1 else ""
    return StorageError(f"{place} is not readable{tried}: {type(error).__name__}: {text}")


def is_permission(error: BaseException) -> bool:
    """Returns whether an error says that the user may not read an object; trying again is in vain."""
    if isinstance(error, PermissionError) or getattr(error, "code", None) in (401, 403, "401", "403"):
        return True
    names = ("NoCredentialsError", "PartialCredentialsError", "DefaultCredentialsError", "RefreshError")
    return type(error).__name__ in names or str(error).startswith("Forbidden")


def is_passing(error: BaseException) -> bool:
    """Returns whether an error may pass, so that trying again is sensible."""
    final = (
        StorageError,
        FileNotFoundError,
        FileExistsError,
        ImportError,
        TypeError,
        AttributeError,
        KeyError,
    )
    if is_permission(error) or isinstance(error, final):
        return False
    if isinstance(error, OSError) and error.errno in (errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG):
        return False
    return isinstance(error, Exception)


def is_full(error: BaseException) -> bool:
    """Returns whether an error says that a disk of this machine is full or read-only."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def local_tag(status: os.stat_result) -> str:
    """Returns the tag of a local file: its time of modification in nanoseconds."""
    return str(status.st_mtime_ns)
