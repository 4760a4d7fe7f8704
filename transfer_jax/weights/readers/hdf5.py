"""A reader of HDF5 files that accepts only arrays stored in the file itself.

h5py reads the structure of a file in a process of its own, `hdf5_walk.py`, with a time limit. Arrays are
views of the file, as in the other formats.
"""

import base64
import math
import mmap
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeGuard

import ml_dtypes
import numpy as np

from transfer_jax.extras import require
from transfer_jax.weights.readers.errors import CheckpointError
from transfer_jax.weights.readers.hdf5_process import structure
from transfer_jax.weights.readers.lazy_weights import ArrayInfo
from transfer_jax.weights.readers.memory_map import release, view

MAGIC = b"\x89HDF\r\n\x1a\n"
_STRINGS = re.compile(rb"GCOL\x01...(.{8})", re.DOTALL)
_OBJECT = struct.Struct("<HH4xQ")
_HEAP = re.compile(rb"HEAP\x00{4}(.{24})", re.DOTALL)
_HEADER, _BLOCK = struct.Struct("<QQQ"), struct.Struct("<QQ")
_NO_BLOCK = 1  # the offset at the end of the list of free blocks
_NUMBER = re.compile(r"(\d+)")

Node = dict[str, Any]
"""A group, an array or another object; see `hdf5_walk.Walk.nodes`."""


class Hdf5:
    """An HDF5 file.

    Args:
        path: The file.
        data: The mapped file.
        start: The position of the HDF5 file in it, in bytes.
        stop: The end of the HDF5 file in it, in bytes.

    Attributes:
        root: The outermost group.

    Raises:
        MissingExtraError: if h5py is not installed.
        CheckpointError: if the bytes are not an HDF5 file, or are damaged.
    """

    def __init__(self, path: Path, data: mmap.mmap, start: int, stop: int) -> None:
        require("h5py")
        self._data, self._start = data, start
        self._seen: set[int] = set()
        with memoryview(data) as whole, whole[start:stop] as part:
            _check_heaps(part)
        self._nodes = structure(path, start, stop)
        self.root = self._checked(self._nodes[0], "")

    def child(self, group: Node, name: str) -> Node | None:
        """Returns the group or array with a name in a group, or None if it does not exist.

        Raises:
            CheckpointError: if the name is a soft or external link, or of an object of another kind.
        """
        found = group["children"].get(name)
        if found is None or name in ("", ".", ".."):
            return None
        return self._checked(found if isinstance(found, dict) else self._nodes[found], name)

    def find(self, group: Node | None, path: str) -> Node | None:
        """Returns the group or array at a path of names, or None; see `child` for errors."""
        for name in path.split("/"):
            group = self.child(group, name) if group is not None and self.is_group(group) else None
        return group

    def children(self, group: Node) -> Iterator[tuple[str, Node]]:
        """Yields each name in a group with its group or array, numbers in numerical order.

        Raises:
            CheckpointError: if a name is a link, or `children` was called for the group before.
        """
        if id(group) in self._seen:
            raise CheckpointError("damaged or malicious HDF5 file: a group is in two places, or in itself")
        self._seen.add(id(group))
        for name in sorted(group["children"], key=_natural):
            found = self.child(group, name)
            if found is None:
                raise CheckpointError(f"damaged or malicious HDF5 file: invalid name {name[:200]!r}")
            yield name, found

    def is_group(self, found: Node | None) -> TypeGuard[Node]:
        """Returns whether an object from `child` or `find` is a group."""
        return found is not None and "children" in found

    def info(self, path: str, array: Node) -> ArrayInfo:
        """Returns the shape and dtype of an array, which are checked against the size of the file.

        Raises:
            CheckpointError: if the array is larger than the file, does not hold numbers, is compressed, or is
                stored in another file.
        """
        if "problem" in array:
            problem = array["problem"]
            if array.get("unsupported"):
                raise CheckpointError(
                    f"the array {path[:200]!r} {problem}; supported are integers, floats and booleans of up "
                    "to 8 bytes, and bfloat16"
                )
            verdict = "refused" if array.get("refused") else "damaged"
            raise CheckpointError(f"{verdict}: the array {path[:200]!r} {problem}")
        return ArrayInfo(tuple(array["shape"]), _dtype(array).name)

    def read(self, array: Node) -> np.ndarray:
        """Returns the values of an array; `info` must have checked it before."""
        dtype, shape, swap = _dtype(array), tuple(array["shape"]), not np.dtype(array["dtype"]).isnative
        if "data" in array:
            return view(base64.b64decode(array["data"]), 0, shape, dtype, swap=swap)
        release(self._data)
        offset = self._start + array["offset"]
        if offset + math.prod(shape) * dtype.itemsize > len(self._data):
            raise CheckpointError("damaged: an array is outside of the file")
        return view(self._data, offset, shape, dtype, swap=swap)

    def strings(self, group: Node, name: str) -> list[str] | None:
        """Returns an attribute of a group, a string or a list of strings, as a list; None if it is missing.

        Raises:
            CheckpointError: if the attribute is of another type, or larger than the file.
        """
        found = group["names"].get(name)
        if isinstance(found, dict):
            if "problem" in found:
                raise CheckpointError(f"damaged: the attribute {name!r} {found['problem']}")
            raise _damaged(name, found)
        return found

    def _checked(self, found: Node, name: str) -> Node:
        kind = found.get("error")
        if kind == "link":
            raise CheckpointError(
                f"refused: {name[:200]!r} is a soft or external link, which Keras never writes"
            )
        if kind == "other":
            raise CheckpointError(f"damaged: {name[:200]!r} is neither a group nor an array")
        if kind is not None:
            raise _damaged(name, found)
        return found


def _check_heaps(data: memoryview) -> None:
    """Checks the heaps, because the HDF5 library loops forever over some damaged ones.

    The time limit finds such a file, too, but this check takes no time.

    Strings of variable length are stored in global heaps: a header, then objects, each with its number,
    references and size. An object of number 0 is the free space up to the end of the heap, and its size
    includes its own header. With a smaller size, the library never reaches the end. Names in a group are
    stored in a local heap, whose free blocks are a linked list. It may not lead back to one of its blocks.

    Raises:
        CheckpointError: If there is such a heap.
    """
    for found in _STRINGS.finditer(data):
        at, stop = found.end(), min(found.start() + int.from_bytes(found[1], "little"), len(data))
        while at + _OBJECT.size <= stop:
            number, _, size = _OBJECT.unpack_from(data, at)
            if number == 0 and size < _OBJECT.size:
                raise CheckpointError("damaged or malicious HDF5 file: a heap of strings has no end")
            at += size if number == 0 else _OBJECT.size + -(-size // 8) * 8
    for found in _HEAP.finditer(data):
        size, free, address = _HEADER.unpack(found[1])
        seen: set[int] = set()
        while free != _NO_BLOCK and free + _BLOCK.size <= size and address + free + _BLOCK.size <= len(data):
            if free in seen:
                raise CheckpointError("damaged or malicious HDF5 file: the free blocks of a heap have no end")
            seen.add(free)
            free, _ = _BLOCK.unpack_from(data, address + free)


def _damaged(name: str, found: Node) -> CheckpointError:
    where = f" at {name[:200]!r}" if name else ""
    return CheckpointError(f"damaged or truncated HDF5 file{where}: {found.get('text', '')}")


def _dtype(array: Node) -> np.dtype[Any]:
    """Returns the dtype of an array in memory. Keras writes bfloat16 as two opaque bytes."""
    dtype = np.dtype(array["dtype"])
    return np.dtype(ml_dtypes.bfloat16) if dtype.kind == "V" else dtype.newbyteorder("=")


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part) if part.isdecimal() else -1, part) for part in _NUMBER.split(name)]
