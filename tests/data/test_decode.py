import struct

import numpy as np
import pytest
import skimage.color
from PIL import Image

from transfer_jax.data.decode import THUMBNAIL, BadImageError, decode_image, summarize_image, to_pil


def rgb(gray: list) -> np.ndarray:
    return np.repeat(np.array(gray, np.uint8)[..., None], 3, axis=-1)


def on_white(value: int, alpha: int) -> int:
    return round((value * alpha + 255 * (255 - alpha)) / 255)


def test_rgb_is_unchanged(cat, encode):
    np.testing.assert_array_equal(decode_image(encode(cat), "cat"), cat)
    assert decode_image(encode(cat), "cat").dtype == np.uint8


def test_gray_becomes_three_equal_channels(cat, encode):
    gray = cat[..., 1].copy()
    np.testing.assert_array_equal(decode_image(encode(gray), "cat"), rgb(gray.tolist()))


def test_to_pil_keeps_gray_images_gray(cat, encode):
    gray = cat[..., 1].copy()
    for content in (gray, encode(gray), encode(gray.astype(np.uint16) * 257)):
        assert to_pil(content, "cat").mode == "L"
        np.testing.assert_array_equal(to_pil(content, "cat"), gray)
    assert to_pil(encode(cat), "cat").mode == to_pil(cat, "cat").mode == "RGB"


def test_one_bit_image(encode):
    image = Image.fromarray(np.array([[0, 255, 0], [255, 255, 0]], np.uint8)).convert("1")
    np.testing.assert_array_equal(decode_image(encode(image), "x"), rgb([[0, 255, 0], [255, 255, 0]]))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_gray_is_scaled_and_rounded(encode, kind):
    values = np.array([[0, 128, 129, 257], [32767, 32768, 65407, 65535]], np.uint16)
    expected = rgb([[0, 0, 1, 1], [127, 128, 255, 255]])
    np.testing.assert_array_equal(decode_image(encode(values, kind), "x"), expected)


def test_16_bit_gray_with_a_transparent_value(encode):
    values = np.array([[1000, 1001]], np.uint16)
    np.testing.assert_array_equal(decode_image(encode(values, transparency=1000), "x"), rgb([[255, 4]]))


def test_palette_image(encode):
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8)).convert("P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    expected = [[[10, 20, 30], [40, 50, 60], [70, 80, 90]]]
    np.testing.assert_array_equal(decode_image(encode(image), "x"), expected)
    blended = [[[255] * 3, [on_white(c, 128) for c in (40, 50, 60)], [70, 80, 90]]]
    np.testing.assert_array_equal(decode_image(encode(image, transparency=b"\x00\x80\xff"), "x"), blended)


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_transparency_is_blended_onto_white(encode, mode):
    alpha = np.arange(256, dtype=np.uint8)
    channels = [np.full(256, value, np.uint8) for value in ((90,) if mode == "LA" else (0, 90, 255))]
    image = np.stack([*channels, alpha], axis=-1)[None]
    expected = [[on_white(int(c[0]), a) for c in channels] * (3 if mode == "LA" else 1) for a in range(256)]
    np.testing.assert_array_equal(decode_image(encode(image), "x"), np.array([expected]))


def test_transparent_colour_of_rgb(encode):
    image = np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8)
    decoded = decode_image(encode(image, transparency=(1, 2, 3)), "x")
    np.testing.assert_array_equal(decoded, [[[255, 255, 255], [4, 5, 6]]])


def test_cmyk_jpeg(encode):
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    decoded = decode_image(encode(image, "JPEG", quality=100), "x").astype(int)
    assert np.abs(decoded - [255, 0, 0]).max() <= 2


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(cat, encode, orientation):
    upright = cat[100:140, 100:160]
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: np.rot90(upright, 1),  # turned counter-clockwise; a viewer turns it back clockwise
        7: np.rot90(upright, 2).swapaxes(0, 1),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    decoded = decode_image(encode(np.ascontiguousarray(stored), exif=exif), "cat")
    np.testing.assert_array_equal(decoded, upright)


def test_exif_orientation_of_a_jpeg(cat, encode):
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = encode(np.ascontiguousarray(np.rot90(cat)), "JPEG", quality=95, exif=exif)
    decoded = decode_image(stored, "cat")
    assert decoded.shape == cat.shape
    assert np.abs(decoded.astype(int) - cat).mean() < 3


def test_malformed_exif_is_ignored(cat, encode):
    encoded = encode(cat, "JPEG", exif=b"Exif\0\0" + b"garbage" * 5)
    np.testing.assert_array_equal(decode_image(encoded, "cat"), decode_image(encode(cat, "JPEG"), "cat"))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"GIF89", "not an image of a known format"),
        (b"<html>404 not found</html>" * 50, "not an image of a known format"),
    ],
)
def test_invalid_files_raise(content, reason):
    with pytest.raises(BadImageError, match=rf"^cats/one\.png: {reason}"):
        decode_image(content, "cats/one.png")


def test_a_png_file_without_its_last_chunk_is_good(cat, encode):
    whole = encode(cat, "PNG")
    np.testing.assert_array_equal(decode_image(whole[:-12], "x"), decode_image(whole, "x"))
    for cut in (13, 16, 17, 24, 60):
        with pytest.raises(BadImageError):
            decode_image(whole[:-cut], "x")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_truncated_files_raise(cat, encode, kind, share):
    encoded = encode(cat, kind)
    with pytest.raises(BadImageError, match=r"^cut off: "):
        decode_image(encoded[: int(share * len(encoded))], "cut off")


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "I;16"])
def test_flipped_byte_of_a_png_never_gives_wrong_pixels(cat, encode, mode):
    patch = Image.fromarray(cat[100:120, 100:125])
    if mode == "I;16":
        image = Image.fromarray(np.asarray(patch.convert("L")).astype(np.uint16) * 257)
    else:
        image = patch.quantize(32) if mode == "P" else patch.convert(mode)
    encoded = encode(image)
    original = decode_image(encoded, "cat")
    unnoticed = []
    for position in range(len(encoded)):
        damaged = bytearray(encoded)
        damaged[position] ^= 0xFF
        try:
            np.testing.assert_array_equal(decode_image(bytes(damaged), "cat"), original)
            unnoticed.append(position)
        except BadImageError:
            continue
    # Only bytes after the pixels may change: length and checksum of the last chunk.
    assert all(position >= len(encoded) - 12 for position in unnoticed)


def test_images_above_half_of_the_limit_are_read_without_a_warning(encode, monkeypatch):
    encoded = encode(np.zeros((11, 11), np.uint8))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert decode_image(encoded, "large").shape == (11, 11, 3)
    assert summarize_image(encoded, "large").width == 11


def test_large_photographs_are_read(cat, encode, monkeypatch):
    encoded = encode(cat[:16, :16], "JPEG")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert decode_image(encoded, "large").shape == (16, 16, 3)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("how", [decode_image, summarize_image])
def test_decompression_bombs_raise(encode, monkeypatch, how, kind):
    encoded = encode(np.zeros((40, 40), np.uint8), kind)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(BadImageError, match=r"^bomb: too large .*1600 .* limit of 200 .*make it smaller"):
        how(encoded, "bomb")


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "LAB"])
def test_other_colour_spaces_of_tiff(encode, cat, mode):
    patch = cat[100:140, 100:160]
    if mode == "LAB":  # TIFF stores a and b as signed bytes.
        lab = skimage.color.rgb2lab(patch)
        stored = np.rint(lab * [2.55, 1, 1]).astype(int) % 256
        image = Image.frombytes("LAB", (60, 40), stored.astype(np.uint8).tobytes())
    else:
        image = Image.fromarray(patch).convert(mode)
    decoded = decode_image(encode(image, "TIFF"), "x").astype(int)
    assert np.abs(decoded - patch).max() <= (12 if mode == "LAB" else 3)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_gray_of_few_bits_with_a_transparent_value(png_file, bits):
    value = {1: 0b10, 2: 0b0110, 4: 0x5A}[bits] << (8 - 2 * bits)  # Two pixels in the upper bits.
    first, second = {1: (255, 0), 2: (85, 170), 4: (85, 170)}[bits]
    row = bytes([value])
    assert decode_image(png_file((2, 1), bits, 0, row), "x").tolist() == [[[first] * 3, [second] * 3]]
    level = second * (2**bits - 1) // 255
    transparent = png_file((2, 1), bits, 0, row, (b"tRNS", bytes([0, level])))
    assert decode_image(transparent, "x").tolist() == [[[first] * 3, [255] * 3]]


def test_palette_of_two_bits_with_transparency_of_some(png_file):
    chunks = (b"PLTE", bytes(range(12))), (b"tRNS", b"\xff\0")
    decoded = decode_image(png_file((4, 1), 2, 3, b"\x1b", *chunks), "x")
    assert decoded.tolist() == [[[0, 1, 2], [255, 255, 255], [6, 7, 8], [9, 10, 11]]]


def test_16_bit_colour_keeps_the_upper_byte(png_file):
    row = np.array([0, 129, 257, 32768, 65407, 65535], ">u2").tobytes()
    assert decode_image(png_file((2, 1), 16, 2, row), "x").tolist() == [[[0, 0, 1], [128, 255, 255]]]


@pytest.mark.parametrize(("alpha", "expected"), [(0, [30, 20, 10]), (128, [142, 137, 132])])
def test_unused_alpha_of_bmp_is_ignored(alpha, expected):
    header = struct.pack("<IiiHHIIiiII", 108, 1, 1, 1, 32, 3, 4, 2835, 2835, 0, 0)
    header += struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000) + b"BGRs" + bytes(48)
    encoded = b"BM" + struct.pack("<IHHI", 126, 0, 0, 122) + header + bytes([10, 20, 30, alpha])
    assert decode_image(encoded, "x").tolist() == [[expected]]


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF", "MPO"])
def test_first_image_of_several(encode, cat, kind):
    first, second = Image.fromarray(cat[:40, :60]), Image.fromarray(cat[200:240, 200:260])
    options = {"lossless": True} if kind == "WEBP" else {}
    encoded = encode(first, kind, save_all=True, append_images=[second], **options)
    alone = encode(first, "JPEG" if kind == "MPO" else kind, **options)
    np.testing.assert_array_equal(decode_image(encoded, "x"), decode_image(alone, "x"))
    summary = summarize_image(encoded, "x")
    assert (summary.width, summary.height) == (60, 40)
    assert summary.kind == ("JPEG" if kind == "MPO" else kind)
    assert summary.paged == (kind != "MPO")
    assert not summarize_image(alone, "x").paged


@pytest.mark.parametrize(
    ("encoded", "expected"),
    [
        (b"P1\n# comment\n3 1\n0 1 0\n", [255, 0, 255]),
        (b"P2\n3 1\n15\n0 5 15\n", [0, 85, 255]),
        (b"P4\n3 1\n\x40", [255, 0, 255]),
    ],
)
def test_portable_bitmaps(encoded, expected):
    np.testing.assert_array_equal(decode_image(encoded, "x"), rgb([expected]))


@pytest.mark.parametrize("most", [65535, 4095, 7])
@pytest.mark.parametrize("plain", [True, False])
def test_portable_pixmaps_are_scaled_by_their_largest_value(most, plain):
    values = np.array([0, most // 2, most])
    if plain:
        encoded = b"P3\n1 1\n%d\n%d %d %d\n" % (most, *values)
    else:
        encoded = b"P6\n1 1\n%d\n" % most + values.astype(">u2" if most > 255 else "u1").tobytes()
    expected = np.rint(values / most * 255)
    assert np.abs(decode_image(encoded, "x")[0, 0] - expected).max() <= 1


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1)])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_tiny_and_thin_images(encode, kind, size):
    encoded = encode(Image.new("RGB", size, "white"), kind)
    assert decode_image(encoded, "x").shape == (*size[::-1], 3)
    summary = summarize_image(encoded, "x")
    assert (summary.width, summary.height) == size
    assert (summary.thumbnail == 255).all()


def test_bytes_after_a_jpeg_are_ignored(cat, encode):
    encoded = encode(cat, "JPEG")
    np.testing.assert_array_equal(decode_image(encoded + b"junk" * 50, "x"), decode_image(encoded, "x"))


@pytest.mark.parametrize("profile", [b"", b"no profile" * 20, bytes(300_000)])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_colour_profiles_are_ignored(cat, encode, kind, profile):
    encoded = encode(cat[:40, :60], kind, icc_profile=profile)
    np.testing.assert_array_equal(decode_image(encoded, "x"), decode_image(encode(cat[:40, :60], kind), "x"))


@pytest.mark.parametrize(
    ("encoded", "kind"),
    [
        (b"\n<!DOCTYPE html><html>not found</html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "a pointer of Git LFS"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "a HEIC image, convert it"),
        (b"%PDF-1.7", "a PDF document"),
        (b"II*\0\x08\0\0\0", "a damaged TIFF image, or not 8-bit gray or RGB: convert it"),
    ],
)
def test_other_files_are_named(encoded, kind):
    with pytest.raises(BadImageError, match=rf"^x: not an image of a known format .*; it is {kind}"):
        decode_image(encoded, "x")


@pytest.mark.parametrize(
    ("kind", "options"), [("PNG", {}), ("JPEG", {"quality": 90}), ("WEBP", {"quality": 90})]
)
def test_summary_agrees_with_the_decoded_image(cat, encode, kind, options):
    encoded = encode(cat, kind, **options)
    look = summarize_image(encoded, "cat")
    assert (look.width, look.height, look.kind, look.gray) == (451, 300, kind, False)
    assert look.thumbnail.shape == (THUMBNAIL, THUMBNAIL, 3)
    whole = summarize_image(decode_image(encoded, "cat"), "cat")
    assert np.abs(look.thumbnail.astype(int) - whole.thumbnail).mean() < 2
    assert whole.kind == ""


def test_summary_is_of_the_upright_image(cat, encode):
    tag = Image.Exif()
    tag[0x0112] = 8
    turned = Image.fromarray(cat).transpose(Image.Transpose.ROTATE_270)
    look = summarize_image(encode(turned, "JPEG", exif=tag), "cat")
    assert (look.width, look.height) == (451, 300)
    assert np.abs(look.thumbnail.astype(int) - summarize_image(cat, "cat").thumbnail).mean() < 3


def test_summary_of_gray_images(cat, encode):
    gray = cat[..., 1].copy()
    for content in (
        encode(gray),
        encode(np.stack([gray] * 3, -1), "JPEG", quality=80),
        np.stack([gray] * 3, -1),
    ):
        assert summarize_image(content, "cat").gray


@pytest.mark.parametrize(("most", "dark"), [(1023, True), (4095, True), (8191, False), (65535, False)])
def test_deep_images_with_few_bits_are_dark(encode, most, dark):
    values = np.linspace(0, most, 64 * 64).astype(np.uint16).reshape(64, 64)
    assert summarize_image(encode(values), "x").dark == dark


@pytest.mark.parametrize(
    "spoil", [lambda file: b"", lambda file: b"no image", lambda file: file[: len(file) // 2]]
)
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_summary_of_bad_files_raises(cat, encode, kind, spoil):
    spoilt = spoil(encode(cat, kind))
    with pytest.raises(BadImageError) as read:
        decode_image(spoilt, "x")
    with pytest.raises(BadImageError) as looked:
        summarize_image(spoilt, "x")
    assert str(looked.value)[:20] == str(read.value)[:20]
