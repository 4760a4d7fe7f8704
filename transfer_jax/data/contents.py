"""The contents and names of the examples of a source, by position; and those of some of them.

All classes here can be pickled, so that processes can read examples.
"""

import errno
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar, overload

import numpy as np

from transfer_jax.data.decode import BadImageError

Content = bytes | np.ndarray | Mapping[str, np.ndarray]
"""An encoded image, the pixels of an image, or the arrays of an example that is not an image."""
Read = Callable[[int], Content]
"""Function from the position of an example to its content."""
ReadMany = Callable[[Sequence[int]], list[Content | BadImageError | OSError]]
"""Function from the positions of several examples to their contents, or to the errors of unreadable ones."""
Names = Sequence[str]
"""The names of the examples: a list, or a rule such as `NumberedNames`."""
_Value = TypeVar("_Value")
_LISTED = 10_000
"""Largest number of names that are copied for a part of a dataset."""


class NumberedNames(Sequence[str]):
    """Names that consist of a text and the position.

    Args:
        prefix: The text before the position; an attribute, too.
        positions: int `(n,)`, the position in the name of each example; or their number, for 0 to n - 1. An
            attribute, too.
    """

    def __init__(self, prefix: str, positions: np.ndarray | int) -> None:
        self.prefix = prefix
        self.positions = range(positions) if isinstance(positions, int) else positions

    def __len__(self) -> int:
        return len(self.positions)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        if isinstance(index, slice):
            return [*map(self._name, self.positions[index])]
        return self._name(self.positions[index])

    def _name(self, position: Any) -> str:
        return f"{self.prefix}{int(position)}"


class ChosenNames(Sequence[str]):
    """The names of some examples of a source.

    Args:
        names: The names of all examples; the attribute `source`.
        rows: int `(m,)`, the positions of the chosen ones; an attribute, too.
    """

    def __init__(self, names: Names, rows: np.ndarray) -> None:
        self.source, self.rows = names, rows

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        if isinstance(index, slice):
            return [self.source[int(row)] for row in self.rows[index]]
        return self.source[int(self.rows[index])]

    def __iter__(self) -> Iterator[str]:
        return (self.source[int(row)] for row in self.rows)


class ReadChosen:
    """A `Read` or `ReadMany` of some examples of a source.

    Args:
        read: The function of the source.
        rows: int `(m,)`, the positions of the chosen examples.
    """

    def __init__(self, read: Callable[[Any], Any], rows: np.ndarray) -> None:
        self.source, self.rows = read, rows

    def __call__(self, index: int | Sequence[int]) -> Any:
        if isinstance(index, Sequence | np.ndarray):
            return self.source(self.rows[np.asarray(index, dtype=np.int64)].tolist())
        return self.source(int(self.rows[index]))


def in_pieces(read: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Returns the reader for examples that are read with neighbours: large pieces of objects, if it can.

    Args:
        read: The function of a source, or of a part of it.
    """
    if isinstance(read, ReadChosen):
        return ReadChosen(in_pieces(read.source), read.rows)
    found = getattr(read, "in_pieces", None)
    return read if found is None else found()


def requests_of(read: Callable[[Any], Any], positions: Sequence[int]) -> list[Any] | None:
    """Returns the requests to object storage that reading some examples sends if the cache is empty.

    Args:
        read: The function of a source, or of a part of it.
        positions: The positions of the examples.

    Returns:
        A `ByteRange` for each request; None if the source is not in object storage, or does not know.
    """
    if isinstance(read, ReadChosen):
        return requests_of(read.source, read.rows[np.asarray(positions, dtype=np.int64)].tolist())
    found = getattr(read, "requests", None)
    return None if found is None else found(positions) or None


def cache_bytes_of(read: Callable[[Any], Any]) -> int:
    """Returns the largest size of the cache of a source in object storage, in bytes; 0 without one."""
    return cache_bytes_of(read.source) if isinstance(read, ReadChosen) else getattr(read, "cache_bytes", 0)


def reader_of(read: Callable[[Any], Any], rows: np.ndarray) -> ReadChosen:
    """Returns the reader of some examples; one of a part of a part reads the source itself.

    Args:
        read: The function of the source, or of a part of it.
        rows: int `(m,)`, the positions of the chosen examples.
    """
    if isinstance(read, ReadChosen):
        return ReadChosen(read.source, read.rows[rows])
    return ReadChosen(read, rows)


def names_of(names: Names, rows: np.ndarray) -> Names:
    """Returns the names of some examples: a list if there are few, otherwise a rule.

    Args:
        names: The names of all examples.
        rows: int `(m,)`, the positions of the chosen ones.
    """
    if len(rows) <= _LISTED:
        return [names[int(row)] for row in rows]
    if isinstance(names, ChosenNames):
        return ChosenNames(names.source, names.rows[rows])
    return ChosenNames(names, rows)


def name_blocks(names: Names) -> Iterator[bytes]:
    """Yields bytes that differ if names do, for a hash of them; fast and in little memory for rules.

    Args:
        names: The names of examples.
    """
    rows: np.ndarray | range = range(len(names))
    if isinstance(names, ChosenNames):
        names, rows = names.source, names.rows
    if isinstance(names, NumberedNames):
        yield f"{names.prefix}\0".encode(errors="surrogateescape")
    for first in range(0, len(rows), _LISTED):
        some = rows[first : first + _LISTED]
        if isinstance(names, NumberedNames):
            known = names.positions
            yield np.asarray(some if isinstance(known, range) else known[np.asarray(some)], "<i8").tobytes()
        else:
            texts = (f"{names[int(row)]}\0" for row in some)
            yield "".join(texts).encode(errors="surrogateescape")


def read_each(read: Read, positions: Sequence[int]) -> list[Content | BadImageError | OSError]:
    """Reads examples one after the other; the error of a bad one takes its place."""
    found: list[Content | BadImageError | OSError] = []
    for position in positions:
        try:
            found.append(read_again(read, position))
        except (BadImageError, OSError) as error:
            found.append(error)
    return found


_PAUSES = (0.1, 0.5, 2.0)
"""Seconds before each next attempt to read a file."""
_PASSING = {
    *(errno.EIO, errno.EAGAIN, errno.EINTR, errno.EBUSY, errno.EMFILE, errno.ENFILE),
    *(errno.ESTALE, errno.ENETDOWN, errno.ENETRESET, errno.ETIMEDOUT, getattr(errno, "EREMOTEIO", errno.EIO)),
}
"""Errors that network file systems raise for a moment."""


def read_again(read: Callable[[int], _Value], index: int) -> _Value:
    """Reads an example, again after a pause if the error may pass; a missing file is no such error."""
    for pause in _PAUSES:
        try:
            return read(index)
        except OSError as error:
            if error.errno not in _PASSING and not isinstance(error, (ConnectionError, TimeoutError)):
                raise
        time.sleep(pause)
    return read(index)
