"""The zip container of PyTorch >= 1.6: `archive/data.pkl` and a member `archive/data/KEY` each storage."""

import mmap
import zipfile
from typing import BinaryIO

from transfer_jax.weights.readers.errors import CheckpointError
from transfer_jax.weights.readers.torch_pickle import PickleReader
from transfer_jax.weights.readers.torch_storages import Archive, StorageTable
from transfer_jax.weights.readers.zip_members import locate, read_members


def read_archive(file: BinaryIO, data: mmap.mmap) -> Archive:
    """Reads the object and locates the storages of the mapped zip file `data`.

    Nothing is decompressed: PyTorch stores its members, and a compressed one is refused. Checksums are not
    compared, as PyTorch can be told not to compute them (`torch.serialization.set_crc32_options`).

    Raises:
        CheckpointError: if the zip is damaged, compressed, or not laid out as PyTorch does.
        UnsafeCheckpointError: if its pickle asks for more than tensors.
    """
    members = read_members(file)
    pickles = [name for name in members if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(pickles) != 1:
        raise CheckpointError(
            f"a zip file with {len(pickles)} members NAME/data.pkl, where PyTorch writes one"
        )
    prefix = pickles[0].removesuffix("data.pkl")
    start, end = locate(data, members[pickles[0]])
    table = StorageTable()
    tree = PickleReader(data[start:end], persistent=table).load()
    offsets = {}
    for key in table.roots:
        member = members.get(f"{prefix}data/{key}")
        if member is None:
            raise CheckpointError(f"the zip file has no member for storage {key!r}")
        start, end = locate(data, member)
        table.check_size(key, end - start)
        offsets[key] = start
    return Archive(tree, offsets, swap=_is_big_endian(data, members.get(f"{prefix}byteorder")))


def _is_big_endian(data: mmap.mmap, member: zipfile.ZipInfo | None) -> bool:
    """Whether the storages are in big-endian byte order; files without the member are older, and little."""
    if member is None:
        return False
    start, end = locate(data, member)
    order = data[start : min(end, start + 16)]
    if order not in (b"little", b"big"):
        raise CheckpointError(f"unknown byte order {order!r}, expected b'little' or b'big'")
    return order == b"big"
