"""A reader of HDF5 files, through h5py, that accepts only arrays stored in the file itself.

An HDF5 file can contain links to other files, arrays that are stored in or assembled from other files,
filters that load plugins or expand a few bytes to gigabytes, and sizes larger than the file. The reader
refuses all of these from the metadata of an object, before it reads data or allocates memory.
"""

import contextlib
import io
import math
import re
import struct
from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np

from transfer_jax.extras import require
from transfer_jax.weights.readers.errors import CheckpointError
from transfer_jax.weights.readers.lazy_weights import ArrayInfo

MAGIC = b"\x89HDF\r\n\x1a\n"
_MAX_NAMES = 100_000
_HEAP = re.compile(rb"GCOL\x01...(.{8})", re.DOTALL)
_OBJECT = struct.Struct("<HH4xQ")
_NUMBER = re.compile(r"(\d+)")


class Hdf5:
    """An open HDF5 file.

    Args:
        data: The bytes of the file.

    Raises:
        MissingExtraError: if h5py is not installed.
        CheckpointError: if the bytes are not an HDF5 file, or are damaged.
    """

    def __init__(self, data: memoryview) -> None:
        require("h5py")

        import h5py

        self._h5py: Any = h5py
        self._size = len(data)
        self._seen: set[int] = set()
        _check_string_heaps(data)
        with _h5py_errors():
            self.root: Any = h5py.File(_MemoryFile(data), "r").id

    def child(self, group: Any, name: str) -> Any:
        """Returns the group or array with a name in a group, or None if it does not exist.

        Raises:
            CheckpointError: if the name is a soft or external link, or of an object of another kind.
        """
        raw = name.encode()
        with _h5py_errors(name):
            if name in ("", ".", "..") or raw not in group:
                return None
            if group.links.get_info(raw).type != self._h5py.h5l.TYPE_HARD:
                raise CheckpointError(
                    f"refused: {name[:200]!r} is a soft or external link, which Keras never writes"
                )
            found = self._h5py.h5o.open(group, raw)
        if not isinstance(found, (self._h5py.h5g.GroupID, self._h5py.h5d.DatasetID)):
            raise CheckpointError(f"damaged: {name[:200]!r} is neither a group nor an array")
        return found

    def find(self, group: Any, path: str) -> Any:
        """Returns the group or array at a path of names, or None; see `child` for errors."""
        for name in path.split("/"):
            group = self.child(group, name) if self.is_group(group) else None
        return group

    def children(self, group: Any) -> Iterator[tuple[str, Any]]:
        """Yields each name in a group with its group or array, numbers in numerical order.

        Raises:
            CheckpointError: if a name is a link, or `children` was called for the group before.
        """
        with _h5py_errors():
            address = int(self._h5py.h5o.get_info(group).addr)
            if address in self._seen:
                raise CheckpointError(
                    "damaged or malicious HDF5 file: a group is in two places, or in itself"
                )
            self._seen.add(address)
            names = [bytes(raw).decode() for raw in group]
        for name in sorted(names, key=_natural):
            found = self.child(group, name)
            if found is None:
                raise CheckpointError(f"damaged or malicious HDF5 file: invalid name {name[:200]!r}")
            yield name, found

    def is_group(self, found: Any) -> bool:
        """Returns whether an object from `child` or `find` is a group."""
        return isinstance(found, self._h5py.h5g.GroupID)

    def info(self, path: str, array: Any) -> ArrayInfo:
        """Returns the shape and dtype of an array, checked against the size of the file.

        Raises:
            CheckpointError: if the array is larger than the file, does not hold numbers, is compressed, or is
                stored in another file.
        """
        with _h5py_errors(path):
            layout = array.get_create_plist()
            if layout.get_external_count():
                raise CheckpointError(f"refused: the array {path[:200]!r} is stored in another file")
            if layout.get_layout() == self._h5py.h5d.VIRTUAL:
                raise CheckpointError(f"refused: the array {path[:200]!r} is assembled from other files")
            if layout.get_nfilters():
                raise CheckpointError(
                    f"refused: the array {path[:200]!r} is compressed, which Keras never does"
                )
            dtype, shape = _dtype(path, array.dtype), array.shape
            if shape is None:
                raise CheckpointError(f"damaged: the array {path[:200]!r} has no values")
            nbytes = math.prod(shape) * dtype.itemsize
            if nbytes > min(self._size, array.get_storage_size()):
                raise CheckpointError(
                    f"damaged: the array {path[:200]!r} takes {nbytes} bytes, more than are in the file"
                )
        return ArrayInfo(tuple(shape), dtype.name)

    def read(self, path: str, array: Any) -> np.ndarray:
        """Returns the values of an array; `info` must have checked it before."""
        with _h5py_errors(path):
            found = np.asarray(self._h5py.Dataset(array)[()])
        dtype = _dtype(path, found.dtype)
        if dtype == ml_dtypes.bfloat16:
            found = found.view(dtype)
        return np.array(found, dtype, order="C")

    def strings(self, group: Any, name: str) -> list[str] | None:
        """Returns an attribute of a group, a string or a list of strings, as a list; None if it is missing.

        Raises:
            CheckpointError: if the attribute is of another type, or larger than the file.
        """
        with _h5py_errors(name):
            if not self._h5py.h5a.exists(group, name.encode()):
                return None
            attribute = self._h5py.h5a.open(group, name.encode())
            shape, dtype = attribute.shape, attribute.dtype
            count = 0 if shape is None else math.prod(shape)
            if shape is None or count * max(dtype.itemsize, 1) > self._size or count > _MAX_NAMES:
                raise CheckpointError(f"damaged: the attribute {name!r} is larger than the file")
            if not count:
                return []
            if dtype.kind != "S" and self._h5py.check_string_dtype(dtype) is None:
                raise CheckpointError(
                    f"damaged: the attribute {name!r} is of type {dtype}, expected a list of names"
                )
            found = np.empty(shape, dtype)
            attribute.read(found)
            return [item.decode() if isinstance(item, bytes) else str(item) for item in found.reshape(-1)]


class _MemoryFile(io.RawIOBase):
    """A read-only file whose content is a range of bytes in memory."""

    def __init__(self, data: memoryview) -> None:
        self._data, self._position = data, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: len(self._data)}[whence]
        self._position = max(start + offset, 0)
        return self._position

    def readinto(self, buffer: Any) -> int:
        part = self._data[self._position : self._position + len(buffer)]
        buffer[: len(part)] = part
        self._position += len(part)
        return len(part)


def _check_string_heaps(data: memoryview) -> None:
    """Checks the heaps of strings, because the HDF5 library loops forever over some damaged ones.

    Strings of variable length are stored in heaps: a header, then objects, each with its number, references
    and size. An object of number 0 is the free space up to the end of the heap, and its size includes its own
    header. With a smaller size, the library never reaches the end.

    Raises:
        CheckpointError: If there is such a heap.
    """
    for found in _HEAP.finditer(data):
        at, stop = found.end(), min(found.start() + int.from_bytes(found[1], "little"), len(data))
        while at + _OBJECT.size <= stop:
            number, _, size = _OBJECT.unpack_from(data, at)
            if number == 0 and size < _OBJECT.size:
                raise CheckpointError("damaged or malicious HDF5 file: a heap of strings has no end")
            at += size if number == 0 else _OBJECT.size + -(-size // 8) * 8


@contextlib.contextmanager
def _h5py_errors(name: str = "") -> Iterator[None]:
    """Turns each error that h5py raises inside into a `CheckpointError`."""
    try:
        yield
    except CheckpointError:
        raise
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, OverflowError, MemoryError) as error:
        where = f" at {name[:200]!r}" if name else ""
        raise CheckpointError(f"damaged or truncated HDF5 file{where}: {error}") from error


def _dtype(path: str, dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Returns the dtype of an array in memory. Keras writes bfloat16 as two opaque bytes."""
    if dtype.kind in "fiub" and dtype.itemsize <= 8:
        return dtype.newbyteorder("=")
    if dtype.kind == "V" and dtype.itemsize == 2 and dtype.names is None and dtype.subdtype is None:
        return np.dtype(ml_dtypes.bfloat16)
    raise CheckpointError(
        f"the array {path[:200]!r} has the unsupported type {dtype}; "
        "supported are integers, floats and booleans of up to 8 bytes, and bfloat16"
    )


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part) if part.isdecimal() else -1, part) for part in _NUMBER.split(name)]
