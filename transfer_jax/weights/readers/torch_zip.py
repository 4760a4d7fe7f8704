"""A reader of PyTorch >= 1.6 zip files: `archive/data.pkl` and a member `archive/data/KEY` per storage."""

import mmap
import zipfile
from collections.abc import Iterable
from typing import BinaryIO

from transfer_jax.weights.readers.errors import CheckpointError
from transfer_jax.weights.readers.torch_pickle import PickleReader
from transfer_jax.weights.readers.torch_storages import Archive, StorageTable
from transfer_jax.weights.readers.zip_members import check, locate, read_members


def read_archive(file: BinaryIO, data: mmap.mmap) -> Archive:
    """Reads the object and locates the storages of the mapped zip file `data`.

    Nothing is decompressed: PyTorch does not compress these members, and a compressed one is refused. The
    checksum of the pickle is compared here, and that of a storage when a tensor in it is read.

    Raises:
        CheckpointError: if the zip file is damaged or compressed, or does not have PyTorch's members.
    """
    members = read_members(file)
    for member in members.values():  # a damaged name may be that of the byte order
        locate(data, member, allow_deflate=True)
    _check_no_program(members)
    pickles = [name for name in members if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(pickles) != 1:
        raise CheckpointError(
            f"not a PyTorch checkpoint: the zip file has {len(pickles)} members NAME/data.pkl, expected one"
        )
    prefix = pickles[0].removesuffix("data.pkl")
    start, end = locate(data, members[pickles[0]])
    check(data, members[pickles[0]])
    table = StorageTable()
    tree = PickleReader(data[start:end], persistent=table).load()
    offsets, storages = {}, {}
    for key in table.roots:
        member = members.get(f"{prefix}data/{key}")
        if member is None:
            raise CheckpointError(f"damaged: the zip file has no member for storage {key!r}")
        start, end = locate(data, member)
        table.check_size(key, end - start)
        offsets[key], storages[key] = start, member
    swap = _is_big_endian(data, members.get(f"{prefix}byteorder"))
    return Archive(tree, offsets, swap=swap, members=storages)


def _check_no_program(members: Iterable[str]) -> None:
    """Raises `CheckpointError` for the files of `torch.export` and of AOTInductor, `.pt2`."""
    names = {name.rpartition("/")[2] for name in members}
    if names & {"archive_format", "serialized_exported_program.json"} or any(
        "/data/weights/" in name or "/data/aotinductor/" in name for name in members
    ):
        raise CheckpointError(
            "the file is a program of torch.export (.pt2), which is not supported; save the weights instead: "
            "torch.save(torch.export.load(path).module().state_dict(), 'weights.pth')"
        )


def _is_big_endian(data: mmap.mmap, member: zipfile.ZipInfo | None) -> bool:
    """Returns whether the storages are big-endian. Older files, without the member, are little-endian."""
    if member is None:
        return False
    start, end = locate(data, member)
    check(data, member)
    order = data[start : min(end, start + 16)]
    if order not in (b"little", b"big"):
        raise CheckpointError(f"unknown byte order {order!r}, expected b'little' or b'big'")
    return order == b"big"
