"""A reader of the container of PyTorch before 1.6: five consecutive pickles, then the storages."""

import mmap
import struct

from transfer_jax.weights.readers.errors import CheckpointError
from transfer_jax.weights.readers.torch_pickle import PickleReader
from transfer_jax.weights.readers.torch_storages import Archive, StorageTable

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001


def read_archive(data: mmap.mmap) -> Archive:
    """Reads the object and locates the storages of the mapped file `data`.

    The pickles are a magic number, a protocol version, facts about the machine, the object and the list of
    its storages' keys. Each storage follows as an int64 count of elements and the elements, always in
    little-endian byte order.

    Raises:
        CheckpointError: if the file is another kind of pickle, damaged or truncated.
    """
    table = StorageTable()
    reader = PickleReader(data)
    if reader.load() != MAGIC:
        raise CheckpointError(
            "a pickle, but not of a PyTorch checkpoint: the magic number is missing; "
            "save the arrays with numpy.savez or torch.save"
        )
    version = reader.load()
    if version != PROTOCOL:
        raise CheckpointError(f"unsupported checkpoint: PyTorch's protocol version {PROTOCOL} is expected")
    reader.load()  # byte order and type sizes of the machine, which do not affect the file
    reader.persistent = table
    tree = reader.load()
    reader.persistent = None
    keys = reader.load()
    if not (isinstance(keys, list) and all(isinstance(key, str) for key in keys)):
        raise CheckpointError("damaged: the list of storages is not a list of strings")
    if len(set(keys)) != len(keys) or set(keys) != set(table.roots):
        raise CheckpointError("damaged: the list of storages does not match the pickle")
    position = reader.pos
    offsets = {}
    for key in keys:
        offsets[key] = position + 8
        if offsets[key] > len(data):
            raise CheckpointError(f"truncated: storage {key!r} is missing")
        (count,) = struct.unpack_from("<q", data, position)
        table.check_size(key, count * table.roots[key].dtype.itemsize)
        position = offsets[key] + table.roots[key].nbytes
        if position > len(data):
            raise CheckpointError(f"truncated: storage {key!r} ends at byte {position} of {len(data)}")
    return Archive(tree, offsets)
