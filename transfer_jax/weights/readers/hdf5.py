"""The arrays of an HDF5 file, which lie in it or are refused; h5py reads them through a window on the file.

HDF5 can lead a reader anywhere: links into other files, arrays that lie in other files or are put together
from them, filters that are loaded as plugins or blow a few bytes up, sizes that nothing stands behind. Each
is refused by looking at what describes an object, before it is read or anything is allocated.
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
        ImportError: if h5py is not installed; says how to get it.
        CheckpointError: if it is no HDF5 file, or a damaged one.
    """

    def __init__(self, data: memoryview) -> None:
        try:
            import h5py
        except ImportError:
            raise ImportError('Keras weights are read with h5py: pip install "transfer_jax[keras]"') from None
        self._h5py: Any = h5py
        self._size = len(data)
        self._seen: set[int] = set()
        _check_string_heaps(data)
        with _h5py_errors():
            self.root: Any = h5py.File(_MemoryFile(data), "r").id

    def child(self, group: Any, name: str) -> Any:
        """The group or array of a name in a group; None if there is none.

        Raises:
            CheckpointError: if the name is a link to elsewhere.
        """
        raw = name.encode()
        with _h5py_errors(name):
            if name in ("", ".", "..") or raw not in group:
                return None
            if group.links.get_info(raw).type != self._h5py.h5l.TYPE_HARD:
                raise CheckpointError(f"refused: {name[:200]!r} is a link to elsewhere")
            found = self._h5py.h5o.open(group, raw)
        if not isinstance(found, (self._h5py.h5g.GroupID, self._h5py.h5d.DatasetID)):
            raise CheckpointError(f"{name[:200]!r} is neither a group nor an array")
        return found

    def find(self, group: Any, path: str) -> Any:
        """`child` along a path of names."""
        for name in path.split("/"):
            group = self.child(group, name) if self.is_group(group) else None
        return group

    def children(self, group: Any) -> Iterator[tuple[str, Any]]:
        """The names in a group, numbers in order, and the group or array of each, as `child`.

        Raises:
            CheckpointError: if a name is a link to elsewhere, or the group was given before.
        """
        with _h5py_errors():
            address = int(self._h5py.h5o.get_info(group).addr)
            if address in self._seen:
                raise CheckpointError("damaged or hostile HDF5 file: a group is in two places, or in itself")
            self._seen.add(address)
            names = [bytes(raw).decode() for raw in group]
        for name in sorted(names, key=_natural):
            found = self.child(group, name)
            if found is None:
                raise CheckpointError(f"damaged or hostile HDF5 file: it has the name {name[:200]!r}")
            yield name, found

    def is_group(self, found: Any) -> bool:
        """Whether what was found is a group."""
        return isinstance(found, self._h5py.h5g.GroupID)

    def info(self, path: str, array: Any) -> ArrayInfo:
        """What an array is, checked against the size of the file.

        Raises:
            CheckpointError: if it takes more bytes than there are in the file, or does not hold numbers.
        """
        with _h5py_errors(path):
            layout = array.get_create_plist()
            if layout.get_external_count():
                raise CheckpointError(f"refused: the array {path[:200]!r} lies in another file")
            if layout.get_layout() == self._h5py.h5d.VIRTUAL:
                raise CheckpointError(f"refused: the array {path[:200]!r} is put together from other files")
            if layout.get_nfilters():
                raise CheckpointError(
                    f"refused: the array {path[:200]!r} is compressed, which Keras never does"
                )
            dtype, shape = _dtype(path, array.dtype), array.shape
            if shape is None:
                raise CheckpointError(f"the array {path[:200]!r} has no values")
            nbytes = math.prod(shape) * dtype.itemsize
            if nbytes > min(self._size, array.get_storage_size()):
                raise CheckpointError(
                    f"the array {path[:200]!r} takes {nbytes} bytes, more than are in the file"
                )
        return ArrayInfo(tuple(shape), dtype.name)

    def read(self, path: str, array: Any) -> np.ndarray:
        """The values of an array that `info` was asked for."""
        with _h5py_errors(path):
            found = np.asarray(self._h5py.Dataset(array)[()])
        dtype = _dtype(path, found.dtype)
        if dtype == ml_dtypes.bfloat16:
            found = found.view(dtype)
        return np.array(found, dtype, order="C")

    def strings(self, group: Any, name: str) -> list[str] | None:
        """An attribute of a group that is a string or a list of them; None if it has no such attribute.

        Raises:
            CheckpointError: if it is something else.
        """
        with _h5py_errors(name):
            if not self._h5py.h5a.exists(group, name.encode()):
                return None
            attribute = self._h5py.h5a.open(group, name.encode())
            shape, dtype = attribute.shape, attribute.dtype
            count = 0 if shape is None else math.prod(shape)
            if shape is None or count * max(dtype.itemsize, 1) > self._size or count > _MAX_NAMES:
                raise CheckpointError(f"the attribute {name!r} has more in it than the file")
            if not count:
                return []
            if dtype.kind != "S" and self._h5py.check_string_dtype(dtype) is None:
                raise CheckpointError(f"the attribute {name!r} is of type {dtype}, not a list of names")
            found = np.empty(shape, dtype)
            attribute.read(found)
            return [item.decode() if isinstance(item, bytes) else str(item) for item in found.reshape(-1)]


class _MemoryFile(io.RawIOBase):
    """Bytes as a file to read."""

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
    """Looks for what would make the HDF5 library loop for ever.

    Strings of any length lie in heaps: a head, then objects, each with its number, references and size. One
    of number 0 is free space up to the end, its own head counted in; with a smaller size no object follows.

    Raises:
        CheckpointError: If there is such a heap.
    """
    for found in _HEAP.finditer(data):
        at, stop = found.end(), min(found.start() + int.from_bytes(found[1], "little"), len(data))
        while at + _OBJECT.size <= stop:
            number, _, size = _OBJECT.unpack_from(data, at)
            if number == 0 and size < _OBJECT.size:
                raise CheckpointError("damaged or hostile HDF5 file: a heap of strings has no end")
            at += size if number == 0 else _OBJECT.size + -(-size // 8) * 8


@contextlib.contextmanager
def _h5py_errors(name: str = "") -> Iterator[None]:
    """Makes a `CheckpointError` of what h5py raises inside."""
    try:
        yield
    except CheckpointError:
        raise
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, OverflowError, MemoryError) as error:
        where = f" at {name[:200]!r}" if name else ""
        raise CheckpointError(f"damaged or truncated HDF5 file{where}: {error}") from error


def _dtype(path: str, dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The type of an array in memory; Keras writes bfloat16 as two opaque bytes."""
    if dtype.kind in "fiub" and dtype.itemsize <= 8:
        return dtype.newbyteorder("=")
    if dtype.kind == "V" and dtype.itemsize == 2 and dtype.names is None and dtype.subdtype is None:
        return np.dtype(ml_dtypes.bfloat16)
    raise CheckpointError(f"the array {path[:200]!r} is of type {dtype}, which is no plain number")


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part) if part.isdecimal() else -1, part) for part in _NUMBER.split(name)]
