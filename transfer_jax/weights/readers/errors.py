"""Errors that readers of weight files raise."""

import contextlib
import types
from collections.abc import Iterator, Mapping
from os import PathLike


class CheckpointError(ValueError):
    """An error for a weight file of an unknown format, or one that is damaged, truncated or ambiguous."""


class SeveralStateDictsError(CheckpointError):
    """An error for a file with several sets of arrays of which none was chosen.

    Attributes:
        shapes: The shapes of the arrays, by the name of the set and by key.
    """

    shapes: Mapping[str, Mapping[str, tuple[int, ...]]] = types.MappingProxyType({})


@contextlib.contextmanager
def error_prefix(path: str | PathLike[str]) -> Iterator[None]:
    """Adds the path of the file to the front of the message of each `CheckpointError` raised inside, once.

    Raises:
        CheckpointError: the error raised inside, with a message of a single line.
    """
    try:
        yield
    except CheckpointError as error:
        message = " ".join(str(error).split())
        error.args = (message if message.startswith(f"{path}") else f"{path}: {message}",)
        raise
