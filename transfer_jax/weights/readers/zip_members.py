"""The positions of the members of a zip file, found without decompressing anything."""

import mmap
import struct
import zipfile
import zlib
from typing import BinaryIO

from transfer_jax.weights.readers.errors import CheckpointError

MAGIC = b"PK\x03\x04"
_LOCAL_HEADER = struct.Struct("<4s5H3I2H")
_ENCRYPTED = 0x1
_MAX_TAIL = (1 << 16) + 200  # the end of the directory, for small and large files, and a comment


def read_members(file: BinaryIO) -> dict[str, zipfile.ZipInfo]:
    """Returns the entries of the zip file's directory by the name of the member.

    Raises:
        CheckpointError: if the zip file is damaged, or a name is duplicate or not a plain relative path.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            infos = archive.infolist()
        expected = _entries(file)
    except (
        zipfile.BadZipFile,
        NotImplementedError,
        struct.error,
        ValueError,
        OverflowError,
        OSError,
    ) as error:
        raise CheckpointError(f"damaged or truncated zip file: {error}; download or save it again") from error
    if len(infos) != expected:
        raise CheckpointError(
            f"damaged: the directory of the zip file has {len(infos)} entries, expected {expected}"
        )
    members: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        name = info.orig_filename
        if name in members:
            raise CheckpointError(f"damaged: the zip file has two members {name!r}")
        if name.startswith("/") or "\\" in name or "\0" in name or ".." in name.split("/"):
            raise CheckpointError(f"refused: the zip file has a member with the path {name!r}")
        members[name] = info
    return members


def _entries(file: BinaryIO) -> int:
    """Returns the number of entries that the end of the directory states, which `zipfile` does not compare.

    With damaged lengths, an entry covers those after it, which are then missing without an error.
    """
    size = file.seek(0, 2)
    file.seek(max(size - _MAX_TAIL, 0))
    tail = file.read()
    at = tail.rfind(b"PK\5\6")
    (count,) = struct.unpack_from("<H", tail, at + 10)
    large = tail.rfind(b"PK\6\6", 0, at)
    return struct.unpack_from("<Q", tail, large + 32)[0] if count == 0xFFFF and large >= 0 else count


def locate(data: mmap.mmap, info: zipfile.ZipInfo, *, allow_deflate: bool = False) -> tuple[int, int]:
    """Returns the range of bytes of a member: start and stop.

    Args:
        data: the mapped file.
        info: the member's entry in the directory.
        allow_deflate: whether the member may be compressed by DEFLATE. The range is then that of the
            compressed bytes.

    Raises:
        CheckpointError: if the member has an unsupported compression, is encrypted or truncated, or does not
            match its entry in the directory.
    """
    name = info.orig_filename
    if allow_deflate and info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise CheckpointError(
            f"the zip member {name!r} has an unsupported compression; only DEFLATE is supported"
        )
    deflated = allow_deflate and info.compress_type == zipfile.ZIP_DEFLATED
    if not deflated and (info.compress_type, info.compress_size) != (zipfile.ZIP_STORED, info.file_size):
        raise CheckpointError(
            f"the zip member {name!r} is compressed, which neither PyTorch nor Keras does; "
            "save the model again"
        )
    if info.flag_bits & _ENCRYPTED:
        raise CheckpointError(f"the zip member {name!r} is encrypted; decrypt the file first")
    begin = info.header_offset
    if not 0 <= begin <= len(data) - _LOCAL_HEADER.size:
        raise CheckpointError(f"truncated: the zip member {name!r} ends outside the file")
    signature, _, _, method, _, _, _, _, _, name_length, extra_length = _LOCAL_HEADER.unpack_from(data, begin)
    name_start = begin + _LOCAL_HEADER.size
    stored = data[name_start : name_start + name_length]
    if signature != MAGIC or method != info.compress_type or stored not in (name.encode(), _cp437(name)):
        raise CheckpointError(f"damaged: the zip member {name!r} does not match its local header")
    start = name_start + name_length + extra_length
    if start + info.compress_size > len(data):
        raise CheckpointError(f"truncated: the zip member {name!r} ends outside the file")
    return start, start + info.compress_size


def check(data: mmap.mmap, info: zipfile.ZipInfo) -> None:
    """Checks the values of a member that is not compressed against its CRC-32.

    A CRC of 0 is not checked: PyTorch writes it if `torch.serialization.set_crc32_options(False)` was called.

    Raises:
        CheckpointError: if they do not match.
    """
    start, stop = locate(data, info)
    with memoryview(data) as whole, whole[start:stop] as stored:
        if info.CRC and zlib.crc32(stored) != info.CRC:
            raise CheckpointError(
                f"damaged: the zip member {info.orig_filename!r} does not match its checksum; download or "
                "save the file again"
            )


def _cp437(name: str) -> bytes:
    return name.encode("cp437", errors="replace")
