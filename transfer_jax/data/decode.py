"""Decoding of image files."""

import contextlib
import dataclasses
import io
import math
import warnings
from typing import NamedTuple

import numpy as np
from PIL import Image, JpegImagePlugin

from transfer_jax.data.bit_depth import is_deep, to_8_bits
from transfer_jax.data.orientation import orientation, swaps_sides, upright
from transfer_jax.data.strip_metadata import without_metadata

# Pillow reads dozens of formats, some by starting other programs. These are the formats of photographs.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")
"""The formats of image files that are read."""
_TIFF = (b"ii*\0", b"mm\0*", b"ii+\0", b"mm\0+")
_OTHER_FILES = (
    (b"<!doctype html", "a web page"),
    (b"<html", "a web page"),
    (b"<svg", "an SVG drawing"),
    (b"<?xml", "an XML file"),
    (b"%pdf", "a PDF document"),
    (b"version https://git-lfs", "a pointer of Git LFS; run `git lfs pull`"),
    (b"pk\x03\x04", "a zip archive"),
    (b"8bps", "a Photoshop document"),
    (b"\x00\x00\x00\x0cjp  ", "a JPEG 2000 image"),
    (b"\x89png", "a damaged PNG image"),
    (b"gif8", "a damaged GIF image"),
    (b"riff", "a damaged WebP image, or another RIFF file"),
    (b"\xff\xd8\xff", "a damaged JPEG image, or not 8-bit: convert it"),
    *((start, "a damaged TIFF image, or not 8-bit gray or RGB: convert it") for start in _TIFF),
)
"""Starts of files, in lower case, that people take for images."""
THUMBNAIL = 32
"""Side of the thumbnail of an `ImageSummary`, in pixels."""
_PNG_BITS = 24
"""Position of the bit depth in a PNG file."""
_NO_END = "truncated PNG file"
"""Pillow's error for a PNG file that ends between two chunks; decoding notices it if pixels are missing."""
_DRAFT = (4 * THUMBNAIL, 4 * THUMBNAIL)
_JPEG = b"\xff\xd8\xff"
"""The start of a JPEG file."""
_GRAY_LEVELS = 4
"""Largest difference between the channels of a gray image: JPEG rounds each channel."""
_DARK_LEVEL = 16
"""Largest value of a nearly black image."""


Box = tuple[float, float, float, float]
"""Left, top, right and bottom in pixels, not necessarily integers."""


class BadImageError(ValueError):
    """An image file that cannot be decoded. The message names the image and the reason."""


def decode_image(encoded: bytes, name: str) -> np.ndarray:
    """Decodes one image file to RGB.

    Gray becomes three equal channels, 16-bit gray and floating-point values are scaled to 8 bits (see
    `to_8_bits`), transparency is blended onto white, CMYK and LAB are converted, and an EXIF orientation is
    applied. Color profiles and malformed metadata are ignored. The first image of an animation or a
    multi-page file is used.

    PNG files have checksums, so that any damage of the pixels raises an error. JPEG files have none: a
    truncated file raises an error, but a changed byte in the middle may only give wrong pixels.

    Args:
        encoded: The contents of the file.
        name: Name of the image in error messages.

    Returns:
        uint8 pixels `(height, width, 3)`.

    Raises:
        BadImageError: If the file is empty, damaged, truncated, of an unknown format, too large (twice
            Pillow's `MAX_IMAGE_PIXELS`; three times for JPEG, as telephones take photographs of 200 million
            pixels), or of a pixel type without an agreed range.
    """
    return to_rgb_array(_decoded(encoded, name).pixels)


def to_pil(content: bytes | np.ndarray, name: str) -> Image.Image:
    """Returns an image file, or pixels, as a Pillow image of mode L if it is gray, otherwise RGB.

    Resizing one gray channel takes a third of the work of three, with the same result.

    Args:
        content: The contents of the file, or uint8 `(height, width)` or `(height, width, 3)`.
        name: Name of the image in error messages.

    Raises:
        BadImageError: As for `decode_image`.
    """
    return _decoded(content, name).pixels if isinstance(content, bytes) else Image.fromarray(content)


class OpenedJpeg(NamedTuple):
    """A JPEG file whose header is read.

    Attributes:
        image: The Pillow image, which can be decoded once.
        size: Width and height of the upright image.
    """

    image: Image.Image
    size: tuple[int, int]


def open_jpeg(content: bytes) -> OpenedJpeg | None:
    """Opens a JPEG file without decoding it; returns None for other and damaged files.

    Args:
        content: The contents of the file.
    """
    if not content.startswith(_JPEG):
        return None
    try:
        image = _open(content)
        width, height = image.size
        return OpenedJpeg(image, (height, width) if swaps_sides(orientation(image)) else (width, height))
    except Exception:  # Decoding raises the error.
        return None


def decode_scaled(encoded: bytes, name: str, scale: float, opened: Image.Image | None = None) -> Image.Image:
    """Decodes a JPEG file at its full size, or at a half, a quarter or an eighth of it.

    Args:
        encoded: The contents of the file.
        name: Name of the image in error messages.
        scale: The smallest size of the result, as a fraction of the full size.
        opened: The image of `open_jpeg`, which is decoded; None opens the file again.

    Returns:
        An upright Pillow image of mode L or RGB.

    Raises:
        BadImageError: As for `decode_image`.
    """
    return _decoded(encoded, name, scale=scale, opened=opened).pixels


def to_rgb_array(image: Image.Image) -> np.ndarray:
    """Returns a Pillow image of mode L or RGB as uint8 RGB pixels `(height, width, 3)`."""
    return np.asarray(_in(image, "RGB"))


def _in(image: Image.Image, mode: str) -> Image.Image:
    """Converts an image to a mode, without the copy that Pillow makes of an image that has it already."""
    return image if image.mode == mode else image.convert(mode)


@dataclasses.dataclass(frozen=True)
class ImageSummary:
    """Size, format and thumbnail of an image.

    Attributes:
        width: Width of the upright image, in pixels.
        height: Height of the upright image, in pixels.
        kind: The format of the file, one of `FORMATS`; empty for an image in memory.
        thumbnail: uint8 `(THUMBNAIL, THUMBNAIL, 3)`, the whole image resized to a square.
        paged: True if the file has more frames or pages, which are not used.
    """

    width: int
    height: int
    kind: str
    thumbnail: np.ndarray
    paged: bool = False

    @property
    def gray(self) -> bool:
        """True if the channels of the thumbnail are equal up to rounding."""
        return int(np.ptp(self.thumbnail.astype(np.int16), axis=-1).max()) <= _GRAY_LEVELS

    @property
    def dark(self) -> bool:
        """True if no value of the thumbnail is above 16, the largest value of 12 bits in 16."""
        return int(self.thumbnail.max()) <= _DARK_LEVEL


def summarize_image(content: bytes | np.ndarray, name: str) -> ImageSummary:
    """Returns size, format and thumbnail of an image file, or of pixels.

    It raises the same errors as `decode_image`, and is faster for JPEG. Stereo images (MPO) count as JPEG.

    Args:
        content: The contents of the file, or uint8 `(height, width)` or `(height, width, 3)`.
        name: Name of the image in error messages.

    Raises:
        BadImageError: As for `decode_image`.
    """
    if isinstance(content, bytes):
        image, width, height, kind, paged = _decoded(content, name, draft=_DRAFT)
    else:
        image, kind, paged = Image.fromarray(content), "", False
        width, height = image.size
    small = image.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BILINEAR, reducing_gap=2.0)
    return ImageSummary(width, height, kind, to_rgb_array(small), paged)


class _Decoded(NamedTuple):
    """An upright image and its file; a draft may be smaller than the size."""

    pixels: Image.Image
    width: int
    height: int
    kind: str
    paged: bool


def _decoded(
    encoded: bytes,
    name: str,
    *,
    draft: tuple[int, int] | None = None,
    scale: float = 1.0,
    opened: Image.Image | None = None,
) -> _Decoded:
    """Decodes an image file; a second time without its metadata if they may be the reason of an error.

    Args:
        encoded: The contents of the file.
        name: Name of the image in error messages.
        draft: The smallest size of the pixels; the format of the file decides how much larger they are.
        scale: The same as a fraction of the full size.
        opened: The opened file; None opens it.
    """
    if not encoded:
        raise BadImageError(f"{name}: the file is empty")
    _ignore_warnings_of_pillow()
    try:
        return _upright(encoded if opened is None else opened, draft, scale)
    except Exception as error:  # Decoders raise many kinds of errors for damaged files.
        for bare in without_metadata(encoded):
            with contextlib.suppress(Exception):
                return _upright(bare, draft, scale)
        if isinstance(error, BadImageError):
            raise BadImageError(f"{name}: {error}") from None
        if isinstance(error, Image.DecompressionBombError):
            advice = "make it smaller, or increase PIL.Image.MAX_IMAGE_PIXELS in Python"
            raise BadImageError(f"{name}: too large ({error}); {advice}") from None
        raise BadImageError(f"{name}: cannot be decoded ({type(error).__name__}: {error})") from error


def _upright(file: bytes | Image.Image, draft: tuple[int, int] | None, scale: float) -> _Decoded:
    """Decodes an image file, or an opened one, once."""
    image = _open(file) if isinstance(file, bytes) else file
    kind, (width, height) = image.format or "", image.size
    least = (math.ceil(width * scale), math.ceil(height * scale)) if scale < 0.5 else draft
    smaller = least is not None and image.draft(image.mode, least) is not None
    image.load()
    number = orientation(image)
    pixels = upright(_gray_or_rgb(image), number)
    if not smaller:
        width, height = pixels.size
    elif swaps_sides(number):
        width, height = height, width
    paged = (
        draft is not None and kind != "MPO" and _has_pages(image)
    )  # MPO has another view of the same picture.
    return _Decoded(pixels, width, height, "JPEG" if kind == "MPO" else kind, paged)


def _has_pages(image: Image.Image) -> bool:
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # A later page is damaged.
        return False


def _ignore_warnings_of_pillow() -> None:
    """Ignores Pillow's warnings of malformed metadata and of large images: the image is read all the same.

    The filter stays: `warnings.catch_warnings` would affect the threads that decode other images.
    """
    if warnings.filters[:1] != _PILLOW_FILTER:
        warnings.filterwarnings("ignore", module=r"PIL\.")
        _PILLOW_FILTER[:] = warnings.filters[:1]


_PILLOW_FILTER: list[tuple] = []


def _open(encoded: bytes) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(encoded), formats=FORMATS)
    except Image.UnidentifiedImageError:
        start = encoded[:40].lstrip(b"\xef\xbb\xbf \r\n\t").lower()
        likely = next((f"; it is {kind}" for prefix, kind in _OTHER_FILES if start.startswith(prefix)), "")
        if encoded[4:8] == b"ftyp" and encoded[8:12] in (b"heic", b"heix", b"mif1", b"msf1", b"hevc"):
            likely = "; it is a HEIC image, convert it to JPEG or PNG"
        raise BadImageError(f"not an image of a known format ({', '.join(FORMATS)}){likely}") from None
    except Image.DecompressionBombError:
        if not encoded.startswith(b"\xff\xd8"):
            raise
        image = JpegImagePlugin.jpeg_factory(io.BytesIO(encoded))  # It has no limit.
        if image.width * image.height > 3 * (Image.MAX_IMAGE_PIXELS or math.inf):
            raise
    if image.format == "PNG":
        try:
            image.verify()  # Decoding does not compare the checksums of the pixel data.
        except OSError as error:
            if str(error) != _NO_END:
                raise
        image = Image.open(io.BytesIO(encoded), formats=["PNG"])
        bits, transparent = encoded[_PNG_BITS], image.info.get("transparency")
        if image.mode in ("1", "L") and bits < 8 and isinstance(transparent, int):
            image.info["transparency"] = transparent * 255 // (2**bits - 1)  # Pillow scales the pixels only.
    return image


def _gray_or_rgb(image: Image.Image) -> Image.Image:
    """Returns a loaded image in mode L if it is gray, otherwise RGB."""
    if is_deep(image):
        try:
            return to_8_bits(image)
        except ValueError as error:
            raise BadImageError(str(error)) from None
    if image.mode in _PREMULTIPLIED:
        image = image.convert(_PREMULTIPLIED[image.mode])
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        image = _on_white(image)
    return _in(image, "L" if image.mode in ("1", "L") else "RGB")


_PREMULTIPLIED = {"La": "LA", "RGBa": "RGBA"}


def _on_white(image: Image.Image) -> Image.Image:
    """Blends an image onto white."""
    try:
        rgba = image.convert("RGBA")
    except (TypeError, ValueError, OverflowError):  # The transparent color is invalid, so nothing has it.
        return image
    if image.format == "BMP" and rgba.getchannel("A").getextrema() == (0, 0):  # The fourth byte is unused.
        return rgba.convert("RGB")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
