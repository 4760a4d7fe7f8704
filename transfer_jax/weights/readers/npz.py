"""NumPy's `.npz` files, as Google's vision_transformer and big_vision publish them: a zip of arrays.

Nothing is unpickled: an array of objects is refused. An array that is stored as it is, as `numpy.savez` does,
becomes a view of the mapped file; one of `numpy.savez_compressed` is decompressed when it is asked for, to no
more than its header says.
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

_NAME_AT = 30  # where a zip file has the name of its first member
_MAGIC = b"\x93NUMPY"
_MAX_HEADER = 4096
_MAX_DIMENSIONS = 32
_MAX_RATIO, _SMALL = 20, 1 << 20
"""How many times the size of the file its arrays may have together, and how many bytes they always may."""

_HEADER = re.compile(
    r"\{'descr': '(?P<order>[<>|=]?)(?P<dtype>[a-zA-Z]\d{1,2})', 'fortran_order': (?P<fortran>True|False), "
    r"'shape': \((?P<shape>(?:\d{1,18}L?,? ?){0,40})\),? ?\} *\n?"
)
_DTYPES: dict[str, np.dtype[Any]] = {
    **{code: np.dtype(code) for code in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")},
    **{code: np.dtype(code) for code in ("c8", "c16", "b1")},
    "V2": np.dtype(ml_dtypes.bfloat16),  # NumPy has no name for it, and saves its bytes
}


class _Member(NamedTuple):
    start: int  # of its bytes in the file, and where they end
    stop: int
    compressed: bool
    checksum: int  # CRC-32 of the header and the values
    header: int  # bytes ahead of the values
    dtype: np.dtype[Any]
    swap: bool
    fortran: bool
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def is_npz(head: bytes, size: int) -> bool:
    """Whether a file that begins with `head` is a zip file whose first member is an array of NumPy's."""
    del size
    length = int.from_bytes(head[26:28], "little")
    return head.startswith(zip_members.MAGIC) and head[_NAME_AT : _NAME_AT + length].endswith(b".npy")


def read_npz(path: Path, entry: str | None = None) -> LazyWeights:
    """Reads the headers of all arrays; an array is read when it is asked for.

    Args:
        path: the file.
        entry: the beginning of the keys to take, such as "params/img"; None takes those of the parameters, if
            an optimizer's state is there too.

    Raises:
        CheckpointError: if the file is damaged or truncated, would grow without measure, or an array is none
            of numbers.
    """
    with error_prefix(path), path.open("rb") as file:
        data = map_file(path)
        members = {}
        for name, info in zip_members.read_members(file).items():
            if not name.endswith(".npy"):
                raise CheckpointError(f"the zip member {name[:200]!r} is no array of NumPy's")
            key = name.removesuffix(".npy")
            members[key] = _member(data, key, info)
        total = sum(member.nbytes for member in members.values())
        if total > _MAX_RATIO * len(data) + _SMALL:
            raise CheckpointError(f"its arrays take {total} bytes, too many for a file of {len(data)}")
        chosen = {key: members[full] for key, full in parameter_keys(members, entry).items()}
        if not chosen:
            raise CheckpointError("the file holds no arrays")
    loaders = {key: functools.partial(_read, path, data, key, member) for key, member in chosen.items()}
    infos = {key: ArrayInfo(member.shape, str(member.dtype)) for key, member in chosen.items()}
    return LazyWeights(path, *split_scanned_blocks(loaders, infos))


def _member(data: mmap.mmap, name: str, info: zipfile.ZipInfo) -> _Member:
    start, stop = zip_members.locate(data, info, allow_deflate=True)
    compressed = info.compress_type != zipfile.ZIP_STORED
    begin = (
        _decompress(data, start, stop, _MAX_HEADER, name)
        if compressed
        else data[start : min(stop, start + _MAX_HEADER)]
    )
    if begin[:6] != _MAGIC or len(begin) < 12 or begin[6] not in (1, 2, 3):
        raise CheckpointError(f"array {name[:200]!r} does not begin as one of NumPy's")
    size_at, size_end = 8, 10 if begin[6] == 1 else 12
    header = size_end + int.from_bytes(begin[size_at:size_end], "little")
    if header > len(begin):
        raise CheckpointError(f"the header of array {name[:200]!r} has {header} bytes, too many or cut off")
    found = _HEADER.fullmatch(begin[size_end:header].decode("latin-1"))
    if found is None:
        raise CheckpointError(f"the header of array {name[:200]!r} describes no plain array of numbers")
    if found["dtype"] not in _DTYPES:
        raise CheckpointError(f"array {name[:200]!r} has the unsupported dtype {found['dtype']}")
    shape = tuple(map(int, re.findall(r"\d+", found["shape"])))
    if len(shape) > _MAX_DIMENSIONS:
        raise CheckpointError(
            f"array {name[:200]!r} has {len(shape)} dimensions, more than {_MAX_DIMENSIONS}"
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
            f"array {name[:200]!r} has {info.file_size - header} bytes, but {shape} of {member.dtype} "
            f"takes {member.nbytes}"
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
    """The first `size` bytes of a compressed member, or as many as there are."""
    with memoryview(data) as whole, whole[start:stop] as compressed:
        try:
            return zlib.decompressobj(-zlib.MAX_WBITS).decompress(compressed, size)
        except zlib.error as error:
            raise CheckpointError(f"damaged: array {name[:200]!r} cannot be decompressed: {error}") from None
