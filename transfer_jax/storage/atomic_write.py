"""Atomic writing of files, and hashes of files."""

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> str:
    """Writes a file atomically: afterwards it is complete, or unchanged if an error occurs.

    Args:
        path: The file. Its folder must exist.
        write: A function that writes to an open binary file.

    Returns:
        The SHA-256 of the file, in hexadecimal digits.

    Raises:
        OSError: If writing fails.
    """
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        try:
            write(file)
            file.flush()
            os.fsync(file.fileno())
            found = sha256(Path(file.name))
            os.replace(file.name, path)
        except BaseException as error:
            os.unlink(file.name)
            if isinstance(error, OSError) and error.filename is None:
                raise OSError(error.errno, error.strerror or str(error), str(path)) from error
            raise
    return found


def write_text(path: Path, text: str) -> None:
    """Writes a text file atomically, in UTF-8."""
    write_atomically(path, lambda file: file.write(text.encode()))


def sha256(path: Path) -> str:
    """Returns the SHA-256 of a file, in hexadecimal digits."""
    return digest(path, "sha256")


def digest(path: Path, algorithm: str) -> str:
    """Returns the hash of a file by an algorithm of `hashlib`, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()
