"""The layout of array_record files, for reading their records by ranges of bytes.

An array_record file consists of chunks of Riegeli (github.com/google/riegeli). Every 64 KiB a block header of
24 bytes interrupts it. A chunk has a header of 40 bytes, with the number of its records, and then their sizes
and their values, each compressed on its own. The last block has the position of the footer, which is a chunk
with the position and the number of records of each other chunk.
"""

import itertools
import struct
from collections.abc import Callable, Iterator

import numpy as np

_BLOCK, _BLOCK_HEADER, _CHUNK_HEADER = 1 << 16, 24, 40
_TAIL = 1 << 18
"""Bytes at the end of a file that are read first; they contain the footer of most files."""
_MAGIC = 0x71930E704FDAE05E
Read = Callable[[int, int], bytes]
"""Function from the first and the last position to the bytes of a file in between."""


class DamagedRecordsError(ValueError):
    """A file is no complete array_record file."""


def read_footer(read: Read, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the positions of the chunks of a file, and their numbers of records.

    Args:
        read: Reads bytes of the file.
        size: The size of the file in bytes.

    Returns:
        int64 `(chunks + 1,)`, the position of each chunk, and of the footer; int64 `(chunks,)`.

    Raises:
        DamagedRecordsError: If the file is truncated or is no array_record file.
    """
    if size < 2 * _BLOCK or size % _BLOCK:
        raise DamagedRecordsError(f"its {size:,} bytes are not the size of a complete array_record file")
    first = max(0, size - _TAIL)
    tail = read(first, size)
    postscript = [*_fields(chunk_records(tail[-_BLOCK:], size - _BLOCK)[0])]
    if len(postscript) != 2 or postscript[1] != _MAGIC:
        raise DamagedRecordsError("it has no footer")
    place = int(postscript[0])
    if not 0 < place < size:
        raise DamagedRecordsError("it has no footer")
    footer = tail[place - first :] if place >= first else read(place, size)
    header, *chunks = chunk_records(footer, place)
    facts = [*_fields(header)]
    found = [[*_fields(each)] for each in chunks]
    if not facts or not isinstance(facts[0], bytes) or any(len(each) != 3 for each in found):
        raise DamagedRecordsError("its footer is damaged")
    offsets = np.array([each[0] for each in found] + [place], np.int64)
    return offsets, np.array([each[2] for each in found], np.int64)


def chunk_records(content: bytes, offset: int) -> list[bytes]:
    """Returns the records of a chunk.

    Args:
        content: The bytes of a file from the beginning of the chunk, up to its end or farther.
        offset: The position of the first byte in the file.

    Raises:
        DamagedRecordsError: If the chunk is truncated or damaged, or of a kind that is not read.
    """
    data = _without_block_headers(content, offset)
    if len(data) < _CHUNK_HEADER:
        raise DamagedRecordsError(f"the chunk at {offset:,} is truncated")
    _, size, _, kind_and_count, _ = struct.unpack_from("<QQQQQ", data)
    kind, count = kind_and_count & 0xFF, kind_and_count >> 8
    body = data[_CHUNK_HEADER : _CHUNK_HEADER + size]
    if kind != ord("r") or len(body) < size:
        kinds = {ord("t"): "it is transposed, which is not read; write it without `transpose`"}
        raise DamagedRecordsError(f"the chunk at {offset:,}: {kinds.get(kind, 'it is truncated or damaged')}")
    try:
        compression = body[0]
        length, place = _varint(body, 1)
        sizes = _decompressed(compression, body[place : place + length])
        values = _decompressed(compression, body[place + length :])
        lengths = [*_varints(sizes)]
    except (IndexError, ValueError, OSError) as error:
        raise DamagedRecordsError(f"the chunk at {offset:,}: {error}") from error
    if len(lengths) != count or sum(lengths) != len(values):
        raise DamagedRecordsError(f"the chunk at {offset:,}: its sizes are damaged")
    ends = [*itertools.accumulate(lengths)]
    return [values[end - length : end] for end, length in zip(ends, lengths, strict=True)]


def _without_block_headers(content: bytes, offset: int) -> bytes:
    first = -offset % _BLOCK
    if first >= len(content):
        return content
    parts = [content[:first]]
    for start in range(first, len(content), _BLOCK):
        parts.append(content[start + _BLOCK_HEADER : start + _BLOCK])
    return b"".join(parts)


def _decompressed(compression: int, content: bytes) -> bytes:
    if compression == 0:
        return content
    if compression != ord("z"):
        raise ValueError(
            f"it is compressed as {chr(compression)!r}, which is not read; write it with `zstd` or "
            "`uncompressed`"
        )
    size, place = _varint(content, 0)
    found = _zstd(content[place:], size)
    if len(found) != size:
        raise ValueError(f"{len(found):,} bytes instead of {size:,} after decompression")
    return found


def _zstd(content: bytes, size: int) -> bytes:
    """Returns decompressed bytes.

    Raises:
        ImportError: If no package for zstd is installed.
    """
    try:
        import pyarrow
    except ImportError:
        raise ImportError(
            "records that are compressed with zstd need pyarrow: pip install 'transfer_jax[remote]'"
        ) from None
    return pyarrow.decompress(content, size, codec="zstd", asbytes=True) if size else b""


def _varint(content: bytes, place: int) -> tuple[int, int]:
    """Returns a number of 7 bits a byte, and the position after it."""
    value = shift = 0
    while True:
        byte = content[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            return value, place


def _varints(content: bytes) -> Iterator[int]:
    place = 0
    while place < len(content):
        value, place = _varint(content, place)
        yield value


def _fields(message: bytes) -> Iterator[int | bytes]:
    """Yields the values of the fields of a protocol buffer, in order."""
    place = 0
    try:
        while place < len(message):
            tag, place = _varint(message, place)
            if tag & 7 == 0:
                value, place = _varint(message, place)
                yield value
            elif tag & 7 == 1:
                yield int.from_bytes(message[place : place + 8], "little")
                place += 8
            else:
                length, place = _varint(message, place)
                yield message[place : place + length]
                place += length
    except IndexError:
        raise DamagedRecordsError("its footer is damaged") from None
