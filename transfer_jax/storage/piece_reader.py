"""Reads of byte ranges by large pieces of objects, for examples whose neighbours are needed soon."""

import functools
import os
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from transfer_jax.storage.byte_ranges import ByteRange
from transfer_jax.storage.file_lock import file_lock
from transfer_jax.storage.object_cache import ObjectCache
from transfer_jax.storage.range_reads import RangeReader
from transfer_jax.storage.remote import is_remote

PIECE = 2**21
"""Bytes of a piece: 2 MiB, some twenty photographs."""
LEAST_CACHE = 10**9
"""Bytes of the smallest cache that pieces are read with; a smaller one loses them before they are used."""
_AT_ONCE = 16
"""Pieces that a process reads at a time."""
_LOCKS = 256


class PieceReader(RangeReader):
    """Reads the pieces of objects that contain ranges, once on a machine, and the ranges from the cache.

    One request for many examples takes a fraction of the time of a request for each. It pays if most examples
    of a piece are needed while it is in the cache. The processes of a machine wait for each other's pieces.
    Local files, and all ranges without a cache of at least `LEAST_CACHE`, are read as by `RangeReader`.

    Args:
        cache: The cache of the pieces.
        piece: The size of a piece in bytes.
    """

    def __init__(self, cache: ObjectCache, *, piece: int = PIECE) -> None:
        super().__init__(cache)
        self._kept, self._piece = cache, piece

    def read(self, ranges: Sequence[ByteRange]) -> list[bytes]:
        """Returns the bytes of ranges, in order; errors are those of `RangeReader.read`."""
        if not self._in_pieces(ranges):
            return super().read(ranges)
        needed = [self._pieces(each) for each in ranges]
        unique = [*dict.fromkeys(piece for pieces in needed for piece in pieces)]
        new = [piece for piece in unique if self._kept.path(piece.key, _length(piece)) is None]
        # The contents of pieces that the cache did not keep, such as on a full disk.
        held = dict(zip(new, _threads(os.getpid()).map(self._fetch, new), strict=True))
        return [
            b"".join(self._part(piece, each, held) for piece in pieces)
            for each, pieces in zip(ranges, needed, strict=True)
        ]

    def requests(self, ranges: Sequence[ByteRange]) -> list[ByteRange]:
        """Returns the pieces that `read` reads if the cache is empty; as `RangeReader.requests`."""
        if not self._in_pieces(ranges):
            return super().requests(ranges)
        remote = [each for each in ranges if is_remote(each.place)]
        return [*dict.fromkeys(piece for each in remote for piece in self._pieces(each))]

    def _in_pieces(self, ranges: Sequence[ByteRange]) -> bool:
        return self._kept.limit >= LEAST_CACHE and any(is_remote(each.place) for each in ranges)

    def _pieces(self, each: ByteRange) -> list[ByteRange]:
        """Returns the pieces that contain a range."""
        first = each.start // self._piece * self._piece
        starts = range(first, each.stop, self._piece) if each.stop > each.start else ()
        return [each._replace(start=at, stop=min(at + self._piece, each.size)) for at in starts]

    def _fetch(self, piece: ByteRange) -> bytes:
        """Reads a piece into the cache, unless another process does so; returns its content."""
        lock = self._kept.folder / "pieces" / f"{zlib.crc32(piece.key.encode()) % _LOCKS:02x}.lock"
        lock.parent.mkdir(parents=True, exist_ok=True)
        with file_lock(lock):
            return super().read([piece])[0]

    def _part(self, piece: ByteRange, each: ByteRange, held: dict[ByteRange, bytes]) -> bytes:
        """Returns the bytes of a range in a piece."""
        start, stop = max(each.start, piece.start) - piece.start, min(each.stop, piece.stop) - piece.start
        if piece in held:
            return held[piece][start:stop]
        if path := self._kept.path(piece.key, _length(piece)):
            try:
                with open(path, "rb", buffering=0) as file:
                    file.seek(start)
                    found = file.read(stop - start)
                if len(found) == stop - start:
                    return found
            except OSError:  # Evicted by another process.
                pass
        return self._fetch(piece)[start:stop]


@functools.cache
def _threads(process: int) -> ThreadPoolExecutor:
    """Returns the threads of a process, which a forked one does not have."""
    return ThreadPoolExecutor(_AT_ONCE, "pieces")


def _length(piece: ByteRange) -> int:
    return piece.stop - piece.start
