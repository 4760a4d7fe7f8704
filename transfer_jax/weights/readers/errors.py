"""Errors that readers of weight files raise."""

import contextlib
from collections.abc import Iterator
from os import PathLike


class CheckpointError(ValueError):
    """An error for a weight file of an unknown format, or one that is damaged, truncated or ambiguous."""


class UnsafeCheckpointError(CheckpointError):
    """An error for a pickle that names anything that tensors do not need. Nothing of it is executed."""


@contextlib.contextmanager
def error_prefix(path: str | PathLike[str]) -> Iterator[None]:
    """Adds the path of the file to the front of the message of each `CheckpointError` raised inside.

    Raises:
        CheckpointError: of the class of the error raised inside, with a message of a single line.
    """
    try:
        yield
    except CheckpointError as error:
        message = " ".join(str(error).split())
        raise type(error)(f"{path}: {message}") from error.__cause__
