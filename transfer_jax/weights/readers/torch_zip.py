"""A reader of PyTorch >= 1.6 zip files: `archive/data.pkl` and a member `archive/data/KEY` per storage."""

import mmap
import zipfile
from typing import BinaryIO

from transfer_jax.weights.readers.errors import CheckpointError
from transfer_jax.weights.readers.torch_pickle import PickleReader
from transfer_jax.weights.readers.torch_storages import Archive, StorageTable
from transfer_jax.weights.readers.zip_members import locate, read_members


def read_archive(file: BinaryIO, data: mmap.mmap) -> Archive:
    """Reads the object and locates the storages of the mapped zip file `data`.

    Nothing is decompressed: PyTorch does not compress members, and a compressed one is refused. Checksums are
    not compared, because PyTorch may not have computed them (`torch.serialization.set_crc32_options`).

    Raises:
        CheckpointError: if the zip file is damaged or compressed, or does not have PyTorch's members.
    """
    members = read_members(file)
    pickles = [name for name in members if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(pickles) != 1:
        raise CheckpointError(
            f"not a PyTorch checkpoint: the zip file has {len(pickles)} members NAME/data.pkl, expected one"
        )
    prefix = pickles[0].removesuffix("data.pkl")
    start, end = locate(data, members[pickles[0]])
    table = StorageTable()
    tree = PickleReader(data[start:end], persistent=table).load()
    offsets = {}
    for key in table.roots:
        member = members.get(f"{prefix}data/{key}")
        if member is None:
            raise CheckpointError(f"damaged: the zip file has no member for storage {key!r}")
        start, end = locate(data, member)
        table.check_size(key, end - start)
        offsets[key] = start
    return Archive(tree, offsets, swap=_is_big_endian(data, members.get(f"{prefix}byteorder")))


def _is_big_endian(data: mmap.mmap, member: zipfile.ZipInfo | None) -> bool:
    """Returns whether the storages are big-endian. Older files, without the member, are little-endian."""
    if member is None:
        return False
    start, end = locate(data, member)
    order = data[start : min(end, start + 16)]
    if order not in (b"little", b"big"):
        raise CheckpointError(f"unknown byte order {order!r}, expected b'little' or b'big'")
    return order == b"big"
