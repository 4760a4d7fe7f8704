import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from transfer_jax.data.decode import BadImageError, decode_image, summarize_image
from transfer_jax.data.strip_metadata import without_metadata


@pytest.fixture
def exif() -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112], tags[0x011A], tags[0x0128] = 6, 72.0, 2
    return tags


def flip(encoded: bytes, place: int) -> bytes:
    changed = bytearray(encoded)
    changed[place] ^= 0xFF
    return bytes(changed)


def assert_turned(encoded: bytes, cat: np.ndarray, kind: str, encode) -> None:
    expected = np.rot90(decode_image(encode(cat[:40, :60], kind), "x"), -1)
    np.testing.assert_array_equal(decode_image(encoded, "x"), expected)
    assert (summarize_image(encoded, "x").width, summarize_image(encoded, "x").height) == (40, 60)


@pytest.mark.parametrize("chunk", [b"iCCP", b"tEXt", b"zTXt", b"iTXt", b"pHYs"])
def test_wrong_checksum_of_metadata_in_a_png(cat, encode, exif, chunk):
    text = PngImagePlugin.PngInfo()
    text.add_text("a", "b")
    text.add_text("c", "d" * 99, zip=True)
    text.add_itxt("e", "f")
    encoded = encode(cat[:40, :60], exif=exif, icc_profile=b"p" * 99, pnginfo=text, dpi=(72, 72))
    assert_turned(flip(encoded, encoded.index(chunk) + 5), cat, "PNG", encode)


def test_wrong_checksum_of_the_orientation(cat, encode, exif):
    encoded = encode(cat[:40, :60], exif=exif)
    damaged = flip(encoded, encoded.index(b"eXIf") + 20)
    np.testing.assert_array_equal(decode_image(damaged, "x"), cat[:40, :60])


@pytest.mark.parametrize("chunk", [b"PLTE", b"tRNS", b"IDAT"])
def test_wrong_checksum_of_pixels_raises(cat, encode, chunk):
    image = Image.fromarray(cat[:40, :60]).quantize(16)
    encoded = encode(image, transparency=b"\0\x80")
    with pytest.raises(BadImageError):
        decode_image(flip(encoded, encoded.index(chunk) + 5), "x")


def test_large_text_of_a_png(cat, encode):
    text = PngImagePlugin.PngInfo()
    text.add_itxt("XML:com.adobe.xmp", "history " * 200_000, zip=True)
    encoded = encode(cat[:40, :60], pnginfo=text)
    np.testing.assert_array_equal(decode_image(encoded, "x"), cat[:40, :60])


def test_invalid_animation_of_a_png(cat, encode):
    patch = Image.fromarray(cat[:40, :60])
    encoded = encode(patch, save_all=True, append_images=[patch.rotate(180)])
    at = encoded.index(b"fcTL")
    frame = encoded[at : at + 8] + struct.pack(">I", 10**6) + encoded[at + 12 : at + 30]
    damaged = encoded[:at] + frame + struct.pack(">I", zlib.crc32(frame)) + encoded[at + 34 :]
    np.testing.assert_array_equal(decode_image(damaged, "x"), cat[:40, :60])


def segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


@pytest.mark.parametrize(
    "extra",
    [
        segment(0xE2, b"MPF\0" + b"II*\0" + b"\xff" * 40),
        segment(0xE2, b"ICC_PROFILE\0\x07\x02" + b"x" * 40),
        segment(0xED, b"Photoshop 3.0\0" + b"8BIM\x03\xed" + b"\xff" * 9),
        segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + b"\xff<x"),
        segment(0xFE, b""),
        b"\xff\xff" + segment(0xFE, b"two")[1:],
    ],
)
def test_malformed_segments_of_a_jpeg(cat, encode, exif, extra):
    encoded = encode(cat[:40, :60], "JPEG", exif=exif)
    assert_turned(encoded[:2] + extra + encoded[2:], cat, "JPEG", encode)


def test_exif_that_pillow_refuses(cat, encode):
    """The unit of resolution is given, and the resolution is one byte; without JFIF Pillow reads it."""
    entries = struct.pack("<HHI4s", 0x011A, 7, 1, b"H\0\0\0") + struct.pack(
        "<HHI4s", 0x0128, 3, 1, b"\2\0\0\0"
    )
    block = b"Exif\0\0" + b"II*\0" + struct.pack("<IH", 8, 2) + entries + bytes(4)
    encoded = encode(cat[:40, :60], "JPEG", exif=block)
    jfif = segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0")
    assert jfif in encoded
    np.testing.assert_array_equal(
        decode_image(encoded.replace(jfif, b""), "x"), decode_image(encode(cat[:40, :60], "JPEG"), "x")
    )


def test_nothing_to_remove(cat, encode):
    for kind in ("PNG", "JPEG", "WEBP", "BMP"):
        assert list(without_metadata(encode(cat[:40, :60], kind))) == []
    for beginning in (b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"\xff\xd8\xff\xe1\0\0"):
        for bare in without_metadata(beginning):
            assert len(bare) < len(beginning)
