"""Decoding of image files."""

import dataclasses
import io

import numpy as np
from PIL import Image

# Pillow reads dozens of formats, some by starting other programs. These are the formats of photographs.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")
"""The formats of image files that are read."""

# The operation that undoes each value of the EXIF tag "Orientation"; 1 is upright.
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
"""Side of the thumbnail of an `ImageSummary`, in pixels."""
_DRAFT = (4 * THUMBNAIL, 4 * THUMBNAIL)
_GRAY_LEVELS = 4
"""Largest difference between the channels of a gray image: JPEG rounds each channel."""


class BadImageError(ValueError):
    """An image file that cannot be decoded. The message names the image and the reason."""


def decode_image(encoded: bytes, name: str) -> np.ndarray:
    """Decodes one image file to RGB.

    Gray becomes three equal channels, 16-bit gray is scaled to 8 bits, transparency is blended onto white,
    CMYK is converted, and an EXIF orientation is applied. A malformed EXIF block is ignored, as viewers do.
    The first image of an animation or a multi-page file is used.

    PNG files have checksums, so that any damage of the pixels raises an error. JPEG files have none: a
    truncated file raises an error, but a changed byte in the middle may only give wrong pixels.

    Args:
        encoded: The contents of the file.
        name: Name of the image in error messages.

    Returns:
        uint8 pixels `(height, width, 3)`.

    Raises:
        BadImageError: If the file is empty, damaged, truncated, of an unknown format, too large
            (Pillow's `MAX_IMAGE_PIXELS`), or of a pixel type without an agreed range.
    """
    return to_rgb_array(_decoded(encoded, name)[0])


def to_pil(content: bytes | np.ndarray, name: str) -> Image.Image:
    """Returns an image file, or pixels, as a Pillow image of mode L if it is gray, otherwise RGB.

    Resizing one gray channel takes a third of the work of three, with the same result.

    Args:
        content: The contents of the file, or uint8 `(height, width)` or `(height, width, 3)`.
        name: Name of the image in error messages.

    Raises:
        BadImageError: As for `decode_image`.
    """
    return _decoded(content, name)[0] if isinstance(content, bytes) else Image.fromarray(content)


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
    """

    width: int
    height: int
    kind: str
    thumbnail: np.ndarray

    @property
    def gray(self) -> bool:
        """True if the channels of the thumbnail are equal up to rounding."""
        return int(np.ptp(self.thumbnail.astype(np.int16), axis=-1).max()) <= _GRAY_LEVELS


def summarize_image(content: bytes | np.ndarray, name: str) -> ImageSummary:
    """Returns size, format and thumbnail of an image file, or of pixels.

    It raises the same errors as `decode_image`, and is faster for JPEG.

    Args:
        content: The contents of the file, or uint8 `(height, width)` or `(height, width, 3)`.
        name: Name of the image in error messages.

    Raises:
        BadImageError: As for `decode_image`.
    """
    if isinstance(content, bytes):
        image, (width, height), kind = _decoded(content, name, draft=True)
    else:
        image, kind = Image.fromarray(content), ""
        width, height = image.size
    small = image.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BILINEAR, reducing_gap=2.0)
    return ImageSummary(width, height, kind, to_rgb_array(small))


def _decoded(encoded: bytes, name: str, *, draft: bool = False) -> tuple[Image.Image, tuple[int, int], str]:
    """Returns the upright image, its size and its format; a `draft` image may be smaller than its size."""
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
    except Exception as error:  # Decoders raise many kinds of errors for damaged files.
        raise BadImageError(f"{name}: cannot be decoded ({type(error).__name__}: {error})") from error


def _open(encoded: bytes) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(encoded), formats=FORMATS)
    except Image.UnidentifiedImageError:
        raise BadImageError(f"not an image of a known format ({', '.join(FORMATS)})") from None
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:
        raise BadImageError(
            f"{image.width} x {image.height} pixels exceed the limit of {limit}; "
            "increase PIL.Image.MAX_IMAGE_PIXELS if the image is valid"
        )
    if image.format == "PNG":
        image.verify()  # Decoding does not compare the checksums of the pixel data.
        image = Image.open(io.BytesIO(encoded), formats=["PNG"])
    return image


def _upright(image: Image.Image) -> Image.Image:
    """Returns the upright image in mode L if it is gray, otherwise RGB."""
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
    except Exception:  # A malformed block does not affect the pixels.
        return 1


def _gray_8_bit(image: Image.Image) -> Image.Image:
    """Scales 0..65535 to 0..255 with rounding; Pillow's conversion clips at 255 instead."""
    values = np.asarray(image).astype(np.uint32)
    gray = ((values * 255 + 32767) // 65535).astype(np.uint8)
    if (transparent := image.info.get("transparency")) is not None:
        gray[values == transparent] = 255
    return Image.fromarray(gray)
