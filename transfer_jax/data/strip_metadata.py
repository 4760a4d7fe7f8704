"""Removal of the parts of an image file that do not affect its pixels.

Pillow refuses a PNG file with a wrong checksum of a comment, or with a text or a color profile above a limit,
and a JPEG file with some malformed segments. Viewers ignore such parts.
"""

import struct
import zlib
from collections.abc import Iterator

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_METADATA = frozenset(
    b"iCCP cICP gAMA cHRM sRGB sBIT bKGD hIST pHYs sPLT tIME tEXt zTXt iTXt eXIf acTL fcTL fdAT iDOT mDCV "
    b"cLLI oFFs pCAL sCAL sTER gIFg gIFx dSIG caBX vpAg orNT prVW".split()
)
"""Chunks of PNG that do not affect the pixels of the first image. An unknown chunk may be a damaged one."""
_JPEG_SEGMENTS = {0xE0, 0xEE}
"""Segments of JPEG for applications that affect the pixels: JFIF and Adobe."""


def without_metadata(encoded: bytes) -> Iterator[bytes]:
    """Yields an image file without metadata: first with the EXIF block if it is intact, then without it.

    It yields nothing if the file is not PNG or JPEG, or has no metadata.
    """
    for keep_exif in (True, False):
        if encoded.startswith(_PNG_SIGNATURE):
            bare = _PNG_SIGNATURE + b"".join(_png_chunks(encoded, keep_exif))
        elif encoded.startswith(b"\xff\xd8\xff"):
            bare = b"\xff\xd8" + b"".join(_jpeg_segments(encoded, keep_exif))
        else:
            return
        if bare != encoded:
            yield bare


def _png_chunks(encoded: bytes, keep_exif: bool) -> Iterator[bytes]:
    start = len(_PNG_SIGNATURE)
    while start + 12 <= len(encoded):
        size, kind = struct.unpack_from(">I4s", encoded, start)
        chunk = encoded[start : start + 12 + size]
        exif = keep_exif and kind == b"eXIf" and zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:])
        if exif or kind not in _PNG_METADATA:
            yield chunk
        start += 12 + size
    yield encoded[start:]


def _jpeg_segments(encoded: bytes, keep_exif: bool) -> Iterator[bytes]:
    start = 2
    while start + 4 <= len(encoded) and encoded[start] == 0xFF:
        _, marker, size = struct.unpack_from(">BBH", encoded, start)
        if marker == 0xFF:  # A marker may have more than one such byte in front.
            start += 1
            continue
        if marker == 0xDA:  # The pixels start here.
            break
        segment = encoded[start : start + 2 + size]
        exif = keep_exif and segment[4:10] == b"Exif\0\0"
        metadata = 0xE0 <= marker <= 0xEF or marker == 0xFE
        if exif or not metadata or marker in _JPEG_SEGMENTS:
            yield segment
        start += 2 + size
    yield encoded[start:]
