import struct

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from transfer_jax.data.decode import decode_image, summarize_image
from transfer_jax.data.orientation import swaps_sides, upright

SHORT, LONG, SIGNED = struct.pack("<HH", 6, 0), struct.pack("<I", 6), struct.pack("<i", -6)
ELSEWHERE = struct.pack("<I", 26)
"""The position of a value that does not fit into its entry."""
TURNED = {
    "short": (3, 1, SHORT),
    "byte": (1, 1, b"\6\0\0\0"),
    "text": (2, 2, b"6\0\0\0"),
    "binary text": (2, 2, b"\6\0\0\0"),
    "undefined": (7, 1, b"\6\0\0\0"),
    "undefined short": (7, 2, b"\6\0\0\0"),
    "undefined text": (7, 1, b"6\0\0\0"),
    "long": (4, 1, LONG),
    "rational": (5, 1, ELSEWHERE + bytes(4) + struct.pack("<II", 6, 1)),
    "float": (11, 1, struct.pack("<f", 6)),
    "double": (12, 1, ELSEWHERE + bytes(4) + struct.pack("<d", 6)),
    "two": (3, 2, struct.pack("<HH", 6, 6)),
}
UPRIGHT = {
    "out of range": (3, 1, struct.pack("<HH", 99, 0)),
    "zero": (3, 1, bytes(4)),
    "negative": (9, 1, SIGNED),
    "text": (2, 4, b"top\0"),
    "no fraction": (5, 1, ELSEWHERE + bytes(4) + struct.pack("<II", 6, 0)),
    "no number": (11, 1, struct.pack("<f", float("nan"))),
    "unknown type": (99, 1, SHORT),
    "empty": (3, 0, SHORT),
    "more than the file": (3, 2**31, SHORT),
    "elsewhere": (12, 1, struct.pack("<I", 10**6)),
}


def block(kind: int, count: int, value: bytes) -> bytes:
    entry = b"II*\0" + struct.pack("<IH", 8, 1) + struct.pack("<HHI", 0x0112, kind, count)
    return b"Exif\0\0" + entry + value.ljust(8, b"\0")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(
    ("value", "turned"),
    [(TURNED[name], True) for name in TURNED] + [(UPRIGHT[name], False) for name in UPRIGHT],
    ids=[*TURNED, *(f"upright, {name}" for name in UPRIGHT)],
)
def test_type_of_the_tag(cat, encode, kind, value, turned):
    stored = cat[100:140, 100:160]
    encoded = encode(stored, kind, exif=block(*value))
    plain = decode_image(encode(stored, kind), "x")
    expected = np.rot90(plain, -1) if turned else plain
    np.testing.assert_array_equal(decode_image(encoded, "x"), expected)
    summary = summarize_image(encoded, "x")
    assert (summary.height, summary.width) == expected.shape[:2]


@pytest.mark.parametrize("length", range(6, 28, 3))
def test_truncated_blocks_are_ignored(cat, encode, length):
    encoded = encode(cat[:40, :60], "JPEG", exif=block(3, 1, SHORT)[:length])
    np.testing.assert_array_equal(
        decode_image(encoded, "x"), decode_image(encode(cat[:40, :60], "JPEG"), "x")
    )
    assert (summarize_image(encoded, "x").width, summarize_image(encoded, "x").height) == (60, 40)


@pytest.mark.parametrize(
    ("compression", "kind", "value"),
    [
        *((compression, 3, 8) for compression in (None, "tiff_lzw", "tiff_deflate", "jpeg")),
        *((None, kind, value) for kind, value in ((4, 8), (1, b"\x08"), (2, "8"), (5, 8), (7, b"8"))),
    ],
)
def test_tiff(cat, encode, compression, kind, value):
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags.tagtype[0x0112] = kind
    tags[0x0112] = value
    stored = cat[100:140, 100:160]
    encoded = encode(stored, "TIFF", tiffinfo=tags, compression=compression)
    expected = np.rot90(decode_image(encode(stored, "TIFF", compression=compression), "x"))
    np.testing.assert_array_equal(decode_image(encoded, "x"), expected)
    summary = summarize_image(encoded, "x")
    assert (summary.width, summary.height) == (40, 60)


@pytest.mark.parametrize("number", range(1, 9))
def test_upright_swaps_sides(number):
    image = upright(Image.new("L", (3, 2)), number)
    assert (image.size == (2, 3)) == swaps_sides(number)
