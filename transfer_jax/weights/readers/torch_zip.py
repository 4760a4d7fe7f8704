"""The zip container of PyTorch >= 1.6: `archive/data.pkl` and a member `archive/data/KEY` each storage."""

import mmap
import struct
import zipfile
from typing import BinaryIO

from transfer_jax.weights.readers.errors import CheckpointError
from transfer_jax.weights.readers.torch_pickle import PickleReader
from transfer_jax.weights.readers.torch_storages import Archive, StorageTable

MAGIC = b"PK\x03\x04"
_LOCAL_HEADER = struct.Struct("<4s5H3I2H")
_ENCRYPTED = 0x1


def read_archive(file: BinaryIO, data: mmap.mmap) -> Archive:
    """Reads the object and locates the storages of the mapped zip file `data`.

    Nothing is decompressed: PyTorch stores its members, and a compressed one is refused. Checksums are not
    compared, as PyTorch can be told not to compute them (`torch.serialization.set_crc32_options`).

    Raises:
        CheckpointError: if the zip is damaged, compressed, or not laid out as PyTorch does.
        UnsafeCheckpointError: if its pickle asks for more than tensors.
    """
    members = _members(file)
    pickles = [name for name in members if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(pickles) != 1:
        raise CheckpointError(
            f"a zip file with {len(pickles)} members NAME/data.pkl, where PyTorch writes one"
        )
    prefix = pickles[0].removesuffix("data.pkl")
    start, end = _locate(data, members[pickles[0]])
    table = StorageTable()
    tree = PickleReader(data[start:end], persistent=table).load()
    offsets = {}
    for key in table.roots:
        member = members.get(f"{prefix}data/{key}")
        if member is None:
            raise CheckpointError(f"the zip file has no member for storage {key!r}")
        start, end = _locate(data, member)
        table.check_size(key, end - start)
        offsets[key] = start
    return Archive(tree, offsets, swap=_is_big_endian(data, members.get(f"{prefix}byteorder")))


def _members(file: BinaryIO) -> dict[str, zipfile.ZipInfo]:
    try:
        with zipfile.ZipFile(file) as archive:
            infos = archive.infolist()
    except (
        zipfile.BadZipFile,
        NotImplementedError,
        struct.error,
        ValueError,
        OverflowError,
        OSError,
    ) as error:
        raise CheckpointError(f"damaged or truncated zip file: {error}") from error
    members: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        name = info.orig_filename
        if name in members:
            raise CheckpointError(f"the zip file has two members {name!r}")
        if name.startswith("/") or "\\" in name or "\0" in name or ".." in name.split("/"):
            raise CheckpointError(f"the zip file has a member with the path {name!r}")
        members[name] = info
    return members


def _locate(data: mmap.mmap, info: zipfile.ZipInfo) -> tuple[int, int]:
    """Returns where the bytes of a member begin and end."""
    name = info.orig_filename
    if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
        raise CheckpointError(f"the zip member {name!r} is compressed, which PyTorch never does")
    if info.flag_bits & _ENCRYPTED:
        raise CheckpointError(f"the zip member {name!r} is encrypted")
    begin = info.header_offset
    if not 0 <= begin <= len(data) - _LOCAL_HEADER.size:
        raise CheckpointError(f"truncated: the zip member {name!r} lies outside the file")
    signature, _, _, method, _, _, _, _, _, name_length, extra_length = _LOCAL_HEADER.unpack_from(data, begin)
    name_start = begin + _LOCAL_HEADER.size
    stored = data[name_start : name_start + name_length]
    if signature != MAGIC or method != zipfile.ZIP_STORED or stored not in (name.encode(), _cp437(name)):
        raise CheckpointError(f"the zip member {name!r} does not match its local header")
    start = name_start + name_length + extra_length
    if start + info.file_size > len(data):
        raise CheckpointError(f"truncated: the zip member {name!r} lies outside the file")
    return start, start + info.file_size


def _cp437(name: str) -> bytes:
    return name.encode("cp437", errors="replace")


def _is_big_endian(data: mmap.mmap, member: zipfile.ZipInfo | None) -> bool:
    """Whether the storages are in big-endian byte order; files without the member are older, and little."""
    if member is None:
        return False
    start, end = _locate(data, member)
    order = data[start : min(end, start + 16)]
    if order not in (b"little", b"big"):
        raise CheckpointError(f"unknown byte order {order!r}, expected b'little' or b'big'")
    return order == b"big"
