"""Readers of examples by ranges of bytes, of which processes receive pickled copies."""

import functools
from collections.abc import Callable, Sequence

import numpy as np

from transfer_jax.data.contents import Content, ReadMany
from transfer_jax.data.decode import BadImageError
from transfer_jax.data.index import DatasetIndex
from transfer_jax.storage.byte_ranges import ByteRange, ChangedObjectError
from transfer_jax.storage.piece_reader import PieceReader
from transfer_jax.storage.range_reads import RangeReader

RangeOf = Callable[[DatasetIndex, int], ByteRange]
"""Function from an index and the position of an example to its bytes."""
Decode = Callable[[bytes, DatasetIndex, int], Content | BadImageError]
"""Function from these bytes, the index and the position to the content of the example."""


class RangeContents:
    """A `ReadMany` that reads the bytes of all examples of a call at once.

    Args:
        index: The index of the source.
        range_of: The bytes of an example.
        reader: Reads them.
        decode: The content of an example from its bytes; None takes the bytes.
        advice: The next step after an object changed, if starting again is not enough.
    """

    def __init__(
        self,
        index: DatasetIndex,
        range_of: RangeOf,
        reader: RangeReader,
        decode: Decode | None = None,
        advice: str = "",
    ) -> None:
        self.index, self._range_of, self._reader = index, range_of, reader
        self._decode, self._advice = decode, advice

    def in_pieces(self) -> "RangeContents":
        """Returns the function that reads large pieces of objects, for examples with neighbours."""
        if self._reader.cache is None:
            return self
        reader = PieceReader(self._reader.cache)
        return RangeContents(self.index, self._range_of, reader, self._decode, self._advice)

    @property
    def cache_bytes(self) -> int:
        """The largest size of the cache, in bytes."""
        return self._reader.cache.limit if self._reader.cache is not None else 0

    def requests(self, positions: Sequence[int]) -> list[ByteRange]:
        """Returns the requests to object storage that a call sends if the cache is empty."""
        return self._reader.requests([self._range_of(self.index, int(each)) for each in positions])

    def __call__(self, positions: Sequence[int]) -> list[Content | BadImageError | OSError]:
        try:
            found = self._reader.read([self._range_of(self.index, int(each)) for each in positions])
        except ChangedObjectError as error:
            if self._advice:
                raise ChangedObjectError(error.place, error.change, self._advice) from None
            raise
        if self._decode is None:
            return [*found]
        return [
            self._decode(content, self.index, int(each))
            for content, each in zip(found, positions, strict=True)
        ]


class ReadOne:
    """A `Read` that calls a `ReadMany` for one example.

    Args:
        read_many: The function for several examples.
    """

    def __init__(self, read_many: ReadMany) -> None:
        self.read_many = read_many

    def __call__(self, index: int) -> Content:
        (found,) = self.read_many([index])
        if isinstance(found, BadImageError | OSError):
            raise found
        return found


def in_shard(index: DatasetIndex, position: int) -> ByteRange:
    """Returns the bytes of an example in a shard, by the columns `offset` and `length` of its index.

    The parts of the index begin with `[place, size, tag]` of each shard.
    """
    place, size, tag = index.parts[shard_of(index, position)][:3]
    offset = int(index.column("offset")[position])
    return ByteRange(place, offset, offset + int(index.column("length")[position]), size, tag)


def shard_of(index: DatasetIndex, position: int) -> int:
    """Returns the number of the shard of an example."""
    return int(np.searchsorted(_ends(index), position, side="right"))


@functools.lru_cache(maxsize=16)
def _ends(index: DatasetIndex) -> np.ndarray:
    return np.cumsum(index.part_counts)
