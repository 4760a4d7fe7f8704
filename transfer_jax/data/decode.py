"""Encoded image files to pictures and pixels, or an error that names the file."""

import dataclasses
import io

import numpy as np
from PIL import Image

# Pillow opens dozens of formats, some by starting other programs. These are the ones photographs come in.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")

# What undoes each value of the EXIF tag "Orientation"; 1 is upright.
_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_NO_AGREED_RANGE = {"F": "floating-point", "I": "32-bit integer"}
THUMBNAIL = 32
"""Side of the thumbnail that a first look gives, in pixels."""
_DRAFT = (4 * THUMBNAIL, 4 * THUMBNAIL)
_GRAY_LEVELS = 4
"""By how much the channels of a gray image may differ: JPEG rounds them one by one."""


class BadImageError(ValueError):
    """An image that cannot be turned into pixels; the message names the image and the reason."""


def decode_image(encoded: bytes, name: str) -> np.ndarray:
    """Decodes one image file to RGB.

    Gray becomes three equal channels, 16-bit gray is scaled to 8 bits, transparency is blended onto
    white, CMYK is converted, and an EXIF orientation is applied (a malformed EXIF block is ignored, as
    viewers do). Of animations and multi-page files the first picture is taken.

    A PNG carries checksums, so damage anywhere in its pixels is found. A JPEG carries none: a cut-off
    file is found, a flipped byte in the middle may only show as odd pixels.

    Args:
        encoded: The whole file.
        name: What to call the image in an error.

    Returns:
        uint8 pixels `(height, width, 3)`.

    Raises:
        BadImageError: If the file is empty, damaged, cut off, of an unknown format, suspiciously large
            (Pillow's `MAX_IMAGE_PIXELS`), or of a pixel type without an agreed range.
    """
    return pixels_of(_decoded(encoded, name)[0])


def picture_of(content: bytes | np.ndarray, name: str) -> Image.Image:
    """The picture of an image file, or of pixels, in mode L if it is gray, else RGB.

    A third of the work to resize a gray picture is left then, to the same pixels.

    Args:
        content: The whole file, or uint8 `(height, width)` or `(height, width, 3)`.
        name: What to call the image in an error.

    Raises:
        BadImageError: As `decode_image`.
    """
    return _decoded(content, name)[0] if isinstance(content, bytes) else Image.fromarray(content)


def pixels_of(picture: Image.Image) -> np.ndarray:
    """A picture of mode L or RGB as uint8 RGB pixels `(height, width, 3)`."""
    return np.asarray(_in(picture, "RGB"))


def _in(picture: Image.Image, mode: str) -> Image.Image:
    """The picture in that mode; Pillow's own conversion copies even those that have it."""
    return picture if picture.mode == mode else picture.convert(mode)


@dataclasses.dataclass(frozen=True)
class Look:
    """What is seen of an image at a glance.

    Attributes:
        width: Its width when upright, in pixels.
        height: Its height likewise.
        kind: The format of its file, one of `FORMATS`; empty for an image in memory.
        thumbnail: uint8 `(THUMBNAIL, THUMBNAIL, 3)`: all of it, squeezed into a square.
    """

    width: int
    height: int
    kind: str
    thumbnail: np.ndarray

    @property
    def gray(self) -> bool:
        """Whether its channels are alike."""
        return int(np.ptp(self.thumbnail.astype(np.int16), axis=-1).max()) <= _GRAY_LEVELS


def look_at(content: bytes | np.ndarray, name: str) -> Look:
    """Looks at an image file, or at RGB pixels: finds what `decode_image` finds, and is faster for JPEG.

    Args:
        content: The whole file, or uint8 `(height, width)` or `(height, width, 3)`.
        name: What to call the image in an error.

    Raises:
        BadImageError: As `decode_image`.
    """
    if isinstance(content, bytes):
        image, (width, height), kind = _decoded(content, name, draft=True)
    else:
        image, kind = Image.fromarray(content), ""
        width, height = image.size
    small = image.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BILINEAR, reducing_gap=2.0)
    return Look(width, height, kind, pixels_of(small))


def _decoded(encoded: bytes, name: str, *, draft: bool = False) -> tuple[Image.Image, tuple[int, int], str]:
    """The upright picture, its size and its format; a draft may be smaller than its size."""
    if not encoded:
        raise BadImageError(f"{name}: the file is empty")
    try:
        image = _open(encoded)
        width, height = image.size
        kind = image.format or ""
        if draft:
            image.draft(image.mode, _DRAFT)
        turned = _orientation(image) >= 5
        return _upright(image), (height, width) if turned else (width, height), kind
    except BadImageError as error:
        raise BadImageError(f"{name}: {error}") from None
    except Exception as error:  # A damaged file can raise nearly anything from within a decoder.
        raise BadImageError(f"{name}: cannot be decoded ({type(error).__name__}: {error})") from error


def _open(encoded: bytes) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(encoded), formats=FORMATS)
    except Image.UnidentifiedImageError:
        raise BadImageError(f"not an image of a known format ({', '.join(FORMATS)})") from None
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:
        raise BadImageError(
            f"{image.width} x {image.height} pixels are more than the limit of {limit}; "
            "raise PIL.Image.MAX_IMAGE_PIXELS if the image is real"
        )
    if image.format == "PNG":
        image.verify()  # Decoding skips the checksums of the pixel data.
        image = Image.open(io.BytesIO(encoded), formats=["PNG"])
    return image


def _upright(image: Image.Image) -> Image.Image:
    """The upright picture in mode L if it is gray, else RGB."""
    image.load()
    orientation = _orientation(image)
    if image.mode in _NO_AGREED_RANGE:
        raise BadImageError(
            f"{_NO_AGREED_RANGE[image.mode]} pixels have no agreed range; "
            "convert the image to 8 or 16 bits first"
        )
    if image.mode.startswith("I;16"):
        image = _gray_8_bit(image)
    elif image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    image = _in(image, "L" if image.mode in ("1", "L") else "RGB")
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # A malformed block says nothing about the pixels.
        return 1


def _gray_8_bit(image: Image.Image) -> Image.Image:
    """Scales 0..65535 to 0..255 with rounding; Pillow's own conversion clips at 255."""
    values = np.asarray(image).astype(np.uint32)
    gray = ((values * 255 + 32767) // 65535).astype(np.uint8)
    if (transparent := image.info.get("transparency")) is not None:
        gray[values == transparent] = 255
    return Image.fromarray(gray)
