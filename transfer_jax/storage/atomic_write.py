"""Atomic writing of files, and hashes of files."""

import contextlib
import hashlib
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

_UNFINISHED = re.compile(r"\..+\.[0-9a-f]{8}\.tmp|\.tmp[A-Za-z0-9]{6}", re.DOTALL)
"""The names of temporary files: those of this module, and those of safetensors."""
_NAME_BYTES = 150
"""The largest number of bytes of a file's name that the name of its temporary file repeats."""
_ABANDONED_SECONDS = 3600.0


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> str:
    """Writes a file atomically: afterwards it is complete, or unchanged if an error occurs.

    The permissions are those of `open(path, "w")`: those of the file that is replaced, or those of the umask.

    Args:
        path: The file. Its folder must exist.
        write: A function that writes to an open binary file.

    Returns:
        The SHA-256 of the file, in hexadecimal digits; an empty text for a device or a pipe.

    Raises:
        OSError: If writing fails. It names the file.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):  # Such as /dev/stdout.
        with path.open("wb") as file:
            write(file)
        return ""
    with replaced_atomically(path) as unfinished:
        with unfinished.open("wb") as file:
            write(file)
        return sha256(unfinished)


@contextlib.contextmanager
def replaced_atomically(path: Path) -> Iterator[Path]:
    """Yields an empty temporary file beside a file, which it replaces when the context ends without an error.

    The permissions are those of `write_atomically`.

    Args:
        path: The file. Its folder must exist.

    Raises:
        OSError: If writing fails. It names the file.
    """
    name = path.name
    if len(os.fsencode(name)) > _NAME_BYTES:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()
    unfinished = path.with_name(f".{name}.{secrets.token_hex(4)}.tmp")
    try:
        os.close(os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        created = unfinished.stat()
        yield unfinished
        _flush(unfinished)
        with contextlib.suppress(PermissionError):  # Some disks have no permissions.
            unfinished.chmod(stat.S_IMODE((path.stat() if path.exists() else created).st_mode))
        os.replace(unfinished, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        if isinstance(error, OSError) and error.errno and error.filename in (None, str(unfinished)):
            raise OSError(error.errno, error.strerror or str(error), str(path)) from error
        raise


def write_text(path: Path, text: str) -> None:
    """Writes a text file atomically, in UTF-8, with escapes for lone surrogates, which UTF-8 lacks."""
    write_atomically(path, lambda file: file.write(text.encode(errors="backslashreplace")))


def delete_unfinished(folder: Path) -> None:
    """Deletes the temporary files in a folder whose writer was killed: those that are older than an hour."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if _UNFINISHED.fullmatch(path.name):
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
                    path.unlink()


def sha256(path: Path) -> str:
    """Returns the SHA-256 of a file, in hexadecimal digits."""
    return digest(path, "sha256")


def digest(path: Path, algorithm: str) -> str:
    """Returns the hash of a file by an algorithm of `hashlib`, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def _flush(path: Path) -> None:
    """Waits until a file is on the disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())
