"""An object or local file as a Python file, read by ranges."""

import io
from typing import Any

from transfer_jax.storage.byte_ranges import ByteRange
from transfer_jax.storage.object_listing import StoredObject
from transfer_jax.storage.range_reads import RangeReader


class RangeFile(io.RawIOBase):
    """A file that is read from the start or at any position, with one window of read bytes.

    Args:
        stored: The object or local file; a change of it is an error of the reads.
        reader: Reads it.
        window: Number of bytes that are read at once.
    """

    def __init__(self, stored: StoredObject, reader: RangeReader, window: int = 1 << 20) -> None:
        super().__init__()
        self._stored, self._reader, self._window = stored, reader, window
        self._place = self._first = 0
        self._content = b""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def size(self) -> int:
        """Returns the number of bytes of the file."""
        return self._stored.size

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._stored.size}[whence]
        self._place = max(0, base + offset)
        return self._place

    def read(self, size: int | None = -1) -> bytes:
        left = self._stored.size - self._place
        wanted = left if size is None or size < 0 else min(size, left)
        if wanted <= 0:
            return b""
        stop = self._place + wanted
        if not self._first <= self._place <= stop <= self._first + len(self._content):
            end = min(max(stop, self._place + self._window), self._stored.size)
            (self._content,) = self._reader.read(
                [ByteRange(self._stored.place, self._place, end, self._stored.size, self._stored.tag)]
            )
            self._first = self._place
        found = self._content[self._place - self._first : stop - self._first]
        self._place = stop
        return found

    def readinto(self, buffer: Any) -> int:
        found = self.read(len(buffer))
        buffer[: len(found)] = found
        return len(found)
