"""The structure of an HDF5 file: its groups, attributes with names, and the places of its arrays.

`hdf5_process.py` runs this file in a process of its own, because the HDF5 library hangs or crashes on some
damaged files. Requests and answers are JSON. An HDF5 file can contain links to other files, arrays that are
stored in or assembled from other files, filters that load plugins or expand a few bytes to gigabytes, and
sizes larger than the file. All of these are refused from the metadata of an object, before data is read.
"""

import base64
import io
import json
import math
import mmap
import re
import select
import sys
from typing import Any

import h5py as _h5py
import numpy as np

h5py: Any = _h5py
_MAX_NODES = 500_000
_MAX_NAMES = 100_000
_MAX_INLINE = 1 << 30
_IDLE_SECONDS = 15
_MEMORY = 4 << 30
_NAMES = re.compile(r"(layer|weight)_names\d*|name")
"""The attributes that are read."""
_ERRORS = (OSError, RuntimeError, ValueError, KeyError, TypeError, OverflowError, MemoryError, AttributeError)


class MemoryFile(io.RawIOBase):
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


class Walk:
    """A walk over all objects of a file.

    Attributes:
        nodes: One dictionary for each object, the root first. A group has `children`, the number of the node
            or an error by name, and `names`, the texts of an attribute or an error by its name. An array has
            `shape`, `dtype`, and `offset` in bytes or the values in `data`, or a `problem`. Anything else has
            an `error`.
    """

    def __init__(self, data: memoryview) -> None:
        self.nodes: list[dict[str, Any]] = []
        self._size, self._inline = len(data), 0
        self._numbers: dict[int, int] = {}
        self._pending: list[tuple[int, Any]] = []
        with h5py.File(MemoryFile(data), "r") as file:
            self._number(file.id if isinstance(file.id, h5py.h5g.GroupID) else h5py.h5g.open(file.id, b"/"))
            while self._pending:
                number, found = self._pending.pop()
                self.nodes[number] = _caught(lambda: self._describe(found))  # noqa: B023

    def _number(self, found: Any) -> int:
        address = int(h5py.h5o.get_info(found).addr)
        if address not in self._numbers:
            if len(self.nodes) >= _MAX_NODES:
                raise ValueError(f"more than {_MAX_NODES} objects")
            self._numbers[address] = len(self.nodes)
            self._pending.append((len(self.nodes), found))
            self.nodes.append({})
        return self._numbers[address]

    def _describe(self, found: Any) -> dict[str, Any]:
        if isinstance(found, h5py.h5g.GroupID):
            return self._group(found)
        if isinstance(found, h5py.h5d.DatasetID):
            return self._array(found)
        return {"error": "other"}

    def _group(self, group: Any) -> dict[str, Any]:
        children = {}
        for raw in group:
            name = bytes(raw).decode()
            children[name] = _caught(lambda: self._child(group, raw))  # noqa: B023
        found = {}
        for index in range(h5py.h5a.get_num_attrs(group)):
            attribute = h5py.h5a.open(group, index=index)
            name = attribute.name.decode()
            if _NAMES.fullmatch(name):
                found[name] = _caught(lambda: self._names(attribute))  # noqa: B023
        return {"children": children, "names": found}

    def _child(self, group: Any, raw: bytes) -> int | dict[str, str]:
        if group.links.get_info(raw).type != h5py.h5l.TYPE_HARD:
            return {"error": "link"}
        return self._number(h5py.h5o.open(group, raw))

    def _names(self, attribute: Any) -> list[str] | dict[str, str]:
        shape, dtype = attribute.shape, attribute.dtype
        count = 0 if shape is None else math.prod(shape)
        if shape is None or count * max(dtype.itemsize, 1) > self._size or count > _MAX_NAMES:
            return {"problem": "is larger than the file"}
        if not count:
            return []
        if dtype.kind != "S" and h5py.check_string_dtype(dtype) is None:
            return {"problem": f"is of type {dtype}, expected a list of names"}
        found = np.empty(shape, dtype)
        attribute.read(found)
        return [item.decode() if isinstance(item, bytes) else str(item) for item in found.reshape(-1)]

    def _array(self, array: Any) -> dict[str, Any]:
        layout = array.get_create_plist()
        if layout.get_external_count():
            return {"problem": "is stored in another file", "refused": True}
        if layout.get_layout() == h5py.h5d.VIRTUAL:
            return {"problem": "is assembled from other files", "refused": True}
        if layout.get_nfilters():
            return {"problem": "is compressed, which Keras never does", "refused": True}
        dtype, shape = array.dtype, array.shape
        opaque = dtype.kind == "V" and dtype.itemsize == 2 and dtype.names is None and dtype.subdtype is None
        if not opaque and not (dtype.kind in "fiub" and dtype.itemsize <= 8):
            return {"problem": f"has the unsupported type {dtype}", "unsupported": True}
        if shape is None:
            return {"problem": "has no values"}
        nbytes = math.prod(shape) * dtype.itemsize
        if nbytes > min(self._size, array.get_storage_size()):
            return {"problem": f"takes {nbytes} bytes, more than are in the file"}
        described = {"shape": list(shape), "dtype": dtype.str}
        stored = opaque or h5py.h5t.py_create(dtype).equal(array.get_type())
        if nbytes and stored and layout.get_layout() == h5py.h5d.CONTIGUOUS:
            offset = array.get_offset()
            if offset is None or offset + nbytes > self._size:
                return {"problem": "is outside of the file"}
            return {**described, "offset": offset}
        self._inline += nbytes
        if self._inline > _MAX_INLINE:
            return {"problem": f"is one of several in chunks, of more than {_MAX_INLINE} bytes together"}
        values = np.ascontiguousarray(h5py.Dataset(array)[()])
        return {**described, "data": base64.b64encode(values.astype(dtype, copy=False).tobytes()).decode()}


def _caught(describe: Any) -> Any:
    try:
        return describe()
    except _ERRORS as error:
        return {"error": "damaged", "text": str(error)}


def walk(path: str, start: int, stop: int) -> dict[str, Any]:
    """Returns the nodes of the HDF5 file in a range of bytes of a file, or an error."""
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            whole = memoryview(data)
            part = whole[start:stop]
            try:
                return {"nodes": Walk(part).nodes}
            finally:
                part.release()
                whole.release()
    except BufferError:
        return {"text": "the file is in use"}
    except _ERRORS as error:
        return {"text": str(error)}


def _limit(size: int, seconds: int) -> None:
    """Limits the memory and the CPU time of this process, where the platform has such limits."""
    try:
        import resource
        from pathlib import Path

        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        used = resource.getrusage(resource.RUSAGE_SELF)
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + size + _MEMORY, hard))
        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + seconds, hard))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ImportError, OSError, ValueError):
        return


def main() -> None:
    """Answers requests from the standard input until it ends, or no request comes for some time."""
    waits = sys.platform != "win32"
    while not waits or select.select([sys.stdin.buffer.raw], [], [], _IDLE_SECONDS)[0]:  # pyright: ignore
        line = sys.stdin.buffer.raw.readline()  # pyright: ignore
        if not line:
            break
        asked = json.loads(line)
        _limit(asked["stop"] - asked["start"], asked["seconds"])
        answer = json.dumps(walk(asked["path"], asked["start"], asked["stop"])).encode()
        sys.stdout.buffer.write(len(answer).to_bytes(8, "little") + answer)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
