"""The EXIF orientation of an image, and the upright image."""

from typing import Any

from PIL import Image

_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The operation that undoes each orientation; 1 is upright."""


def orientation(image: Image.Image) -> int:
    """Returns the orientation of an image, 1 to 8; 1 if the tag is missing or invalid.

    Cameras and editors store the number as any type of EXIF: an integer, a fraction, a byte, text or a list.
    A malformed block does not affect the pixels, so it raises no error.
    """
    try:
        number = _number(image.getexif().get(_TAG, 1))
    except Exception:  # Pillow raises many kinds of errors for malformed blocks.
        return 1
    return number if number in _UPRIGHT else 1


def upright(image: Image.Image, number: int) -> Image.Image:
    """Returns the upright image of one that is stored with an orientation."""
    return image.transpose(_UPRIGHT[number]) if number in _UPRIGHT else image


def swaps_sides(number: int) -> bool:
    """Returns True if the upright image has the height of the stored one as its width."""
    return number >= 5


def _number(value: Any) -> int:
    """Returns the number that a value of any EXIF type means; raises an error if there is none."""
    if isinstance(value, (tuple, list)):
        value = value[0]
    if isinstance(value, str):
        value = value.encode("latin-1")
    if isinstance(value, bytes):
        (code,) = value.strip(b"\0 ")  # Another length is an error.
        return code - ord("0") if code >= ord("0") else code
    return int(value) if value == int(value) else 1
