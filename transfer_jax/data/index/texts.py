"""Strings in two arrays, which can be memory-mapped."""

from collections.abc import Iterable, Iterator, Sequence
from typing import overload

import numpy as np

_ERRORS = "surrogateescape"
"""Names of files may have bytes that are not UTF-8."""


class TextColumn(Sequence[str]):
    """Strings in one block of UTF-8; each is decoded when it is needed.

    Args:
        content: uint8 `(bytes,)`, the strings one after the other.
        offsets: int `(n + 1,)`, where each string begins, and the end of the last one.
    """

    def __init__(self, content: np.ndarray, offsets: np.ndarray) -> None:
        self._content, self._offsets = content, offsets

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __iter__(self) -> Iterator[str]:
        return (self[place] for place in range(len(self)))

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise IndexError(f"index {index} is out of range for {len(self)} texts")
        first, end = int(self._offsets[place]), int(self._offsets[place + 1])
        return self._content[first:end].tobytes().decode(errors=_ERRORS)

    def part(self, first: int, end: int) -> "TextColumn":
        """Returns consecutive strings, from the position of the first one to that after the last one."""
        return TextColumn(self._content, self._offsets[first : end + 1])

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns the bytes of the strings, uint8, and the number of bytes of each, int64 `(n,)`."""
        offsets = self._offsets.astype(np.int64)
        return self._content[int(offsets[0]) : int(offsets[-1])], np.diff(offsets)


def encode_texts(texts: Iterable[str]) -> tuple[np.ndarray, np.ndarray]:
    """Returns strings as UTF-8, uint8 `(bytes,)`, and the number of bytes of each, int64 `(n,)`."""
    encoded = [text.encode(errors=_ERRORS) for text in texts]
    lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
    return np.frombuffer(b"".join(encoded), np.uint8), lengths
