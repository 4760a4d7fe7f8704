"""What reading a weight file can go wrong with."""

import contextlib
from collections.abc import Iterator
from os import PathLike


class CheckpointError(ValueError):
    """A weight file that cannot be read: unknown format, damaged, truncated or ambiguous."""


class UnsafeCheckpointError(CheckpointError):
    """A pickle that asks for more than rebuilding tensors. It is refused before anything is executed."""


@contextlib.contextmanager
def error_prefix(path: str | PathLike[str]) -> Iterator[None]:
    """Puts the file's name in front of every `CheckpointError` raised inside, as a single line.

    Raises:
        CheckpointError: of the same class as the one raised inside.
    """
    try:
        yield
    except CheckpointError as error:
        message = " ".join(str(error).split())
        raise type(error)(f"{path}: {message}") from error.__cause__
