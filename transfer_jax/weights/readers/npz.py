"""A reader of NumPy's `.npz` files, the format of Google's vision_transformer and big_vision.

Nothing is unpickled: arrays of objects are left out, as are those of texts, dates and records. An
uncompressed array (`numpy.savez`) becomes a view of the mapped file. A compressed array
(`numpy.savez_compressed`) is decompressed on access, to at most the size in its header.
"""

import functools
import math
import mmap
import re
import zipfile
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from transfer_jax.weights.readers import zip_members
from transfer_jax.weights.readers.errors import CheckpointError, error_prefix
from transfer_jax.weights.readers.flax_tree import parameter_keys, split_scanned_blocks
from transfer_jax.weights.readers.lazy_weights import ArrayInfo, LazyWeights
from transfer_jax.weights.readers.memory_map import map_file, release, view

_NAME_AT = 30  # the offset of the first member's name in a zip file, in bytes
_MAGIC = b"\x93NUMPY"
_MAX_HEADER = 4096
_MAX_DIMENSIONS = 32
_MAX_RATIO, _SMALL = 20, 1 << 20
"""The arrays together may have `_MAX_RATIO` times the file's size plus `_SMALL` bytes."""

_HEADER = re.compile(
    r"\{'descr': '(?P<order>[<>|=]?)(?P<dtype>[a-zA-Z]\d{1,2})', 'fortran_order': (?P<fortran>True|False), "
    r"'shape': \((?P<shape>(?:\d{1,18}L?,? ?){0,40})\),? ?\} *\n?"
)
_NO_NUMBERS = re.compile(r"\{'descr': (?:\[|'[<>|=]?[OUSMm]\d*(?:\[|'))")
"""The beginning of the header of objects, texts, dates or records, such as the settings of a training."""
_DTYPES: dict[str, np.dtype[Any]] = {
    **{code: np.dtype(code) for code in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")},
    **{code: np.dtype(code) for code in ("c8", "c16", "b1")},
    "V2": np.dtype(ml_dtypes.bfloat16),  # NumPy has no name for bfloat16 and saves raw bytes
}


class _Member(NamedTuple):
    start: int  # the range of its bytes in the file: start to stop
    stop: int
    compressed: bool
    checksum: int  # CRC-32 of the header and the values
    header: int  # the number of bytes before the values
    dtype: np.dtype[Any]
    swap: bool
    fortran: bool
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def is_npz(head: bytes, size: int) -> bool:
    """Returns whether a file that begins with `head` is a zip file whose first member is a `.npy` file."""
    del size
    length = int.from_bytes(head[26:28], "little")
    return head.startswith(zip_members.MAGIC) and head[_NAME_AT : _NAME_AT + length].endswith(b".npy")


def read_npz(path: Path, entry: str | None = None) -> LazyWeights:
    """Reads the headers of all arrays. Each array is read on access.

    Args:
        path: the file.
        entry: the prefix of the keys to take, such as "params/img". None takes the parameters only, if the
            file also holds the state of an optimizer.

    Raises:
        CheckpointError: if the file is damaged or truncated, if its arrays are far larger than the file, or
        if
            an array does not hold numbers.
    """
    with error_prefix(path), path.open("rb") as file:
        data = map_file(path)
        members = {}
        for name, info in zip_members.read_members(file).items():
            if not name.endswith(".npy"):
                raise CheckpointError(
                    f"not an .npz file: the name of the zip member {name[:200]!r} does not end in .npy"
                )
            key = name.removesuffix(".npy")
            if (member := _member(data, key, info)) is not None:
                members[key] = member
        total = sum(member.nbytes for member in members.values())
        if total > _MAX_RATIO * len(data) + _SMALL:
            raise CheckpointError(
                f"refused: the arrays take {total} bytes, too many for a file of {len(data)} bytes"
            )
        chosen = {key: members[full] for key, full in parameter_keys(members, entry).items()}
        if not chosen:
            raise CheckpointError(
                "the file holds no arrays of numbers; save each parameter as an array: "
                "numpy.savez(path, **arrays)"
            )
    loaders = {key: functools.partial(_read, path, data, key, member) for key, member in chosen.items()}
    infos = {key: ArrayInfo(member.shape, str(member.dtype)) for key, member in chosen.items()}
    return LazyWeights(path, *split_scanned_blocks(loaders, infos))


def _member(data: mmap.mmap, name: str, info: zipfile.ZipInfo) -> _Member | None:
    """Returns the place of an array in the file, or None if it has no numbers."""
    start, stop = zip_members.locate(data, info, allow_deflate=True)
    compressed = info.compress_type != zipfile.ZIP_STORED
    begin = (
        _decompress(data, start, stop, _MAX_HEADER, name)
        if compressed
        else data[start : min(stop, start + _MAX_HEADER)]
    )
    if begin[:6] != _MAGIC or len(begin) < 12 or begin[6] not in (1, 2, 3):
        raise CheckpointError(f"damaged: array {name[:200]!r} does not begin with the header of a .npy file")
    size_at, size_end = 8, 10 if begin[6] == 1 else 12
    header = size_end + int.from_bytes(begin[size_at:size_end], "little")
    if header > len(begin):
        raise CheckpointError(
            f"damaged: the header of array {name[:200]!r} has {header} bytes, too many or truncated"
        )
    text = begin[size_end:header].decode("latin-1")
    found = _HEADER.fullmatch(text)
    if (found is None or found["dtype"] not in _DTYPES) and _NO_NUMBERS.match(text):
        return None
    if found is None:
        raise CheckpointError(
            f"the header of array {name[:200]!r} does not describe an array of numbers; "
            "arrays of objects and of records are not supported"
        )
    if found["dtype"] not in _DTYPES:
        raise CheckpointError(
            f"array {name[:200]!r} has the unsupported dtype {found['dtype']}; "
            f"supported are {', '.join(_DTYPES)}"
        )
    shape = tuple(map(int, re.findall(r"\d+", found["shape"])))
    if len(shape) > _MAX_DIMENSIONS:
        raise CheckpointError(
            f"array {name[:200]!r} has {len(shape)} dimensions, more than the {_MAX_DIMENSIONS} allowed"
        )
    member = _Member(
        start=start,
        stop=stop,
        compressed=compressed,
        checksum=info.CRC,
        header=header,
        dtype=_DTYPES[found["dtype"]],
        swap=found["order"] == ">" and found["dtype"] != "V2",
        fortran=found["fortran"] == "True",
        shape=shape,
    )
    if header + member.nbytes != info.file_size or max(shape, default=0) > info.file_size:
        raise CheckpointError(
            f"damaged: array {name[:200]!r} has {info.file_size - header} bytes, but {shape} of "
            f"{member.dtype} takes {member.nbytes}"
        )
    return member


def _read(path: Path, data: mmap.mmap, name: str, member: _Member) -> np.ndarray:
    release(data)
    buffer, offset = data, member.start + member.header
    with error_prefix(path):
        if member.compressed:
            size = member.header + member.nbytes
            buffer, offset = _decompress(data, member.start, member.stop, size, name), member.header
            checksum = zlib.crc32(buffer)
        else:
            with memoryview(data) as whole, whole[member.start : member.stop] as stored:
                checksum = zlib.crc32(stored)
        if checksum != member.checksum or (
            member.compressed and len(buffer) != member.header + member.nbytes
        ):
            raise CheckpointError(f"damaged: array {name[:200]!r} does not match its checksum")
    order = "F" if member.fortran else "C"
    return view(buffer, offset, member.shape, member.dtype, order=order, swap=member.swap)


def _decompress(data: mmap.mmap, start: int, stop: int, size: int, name: str) -> bytes:
    """Returns the first `size` bytes of a compressed member, or fewer if it is shorter."""
    with memoryview(data) as whole, whole[start:stop] as compressed:
        try:
            return zlib.decompressobj(-zlib.MAX_WBITS).decompress(compressed, size)
        except zlib.error as error:
            raise CheckpointError(f"damaged: array {name[:200]!r} does not decompress: {error}") from None
