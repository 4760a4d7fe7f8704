"""Conversion of images with more than 8 bits for each pixel to 8 bits."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

# Tags of TIFF.
_BITS, _PHOTOMETRIC, _MAX_SAMPLE, _SAMPLE_FORMAT, _SMIN_SAMPLE, _SMAX_SAMPLE = 258, 262, 281, 339, 340, 341
_DEPTHS = {2**bits - 1 for bits in range(8, 17)}
"""Largest values of 8 to 16 bits."""


def is_deep(image: Image.Image) -> bool:
    """Returns True if an image has one channel of more than 8 bits, or of 8 bits with a sign."""
    return image.mode in ("F", "I") or image.mode.startswith("I;16") or _has_signed_bytes(image)


def _has_signed_bytes(image: Image.Image) -> bool:
    """Returns True for a TIFF image of signed bytes, which Pillow opens as unsigned ones."""
    return image.mode == "L" and _first(getattr(image, "tag_v2", {}).get(_SAMPLE_FORMAT, 1)) == 2


def to_8_bits(image: Image.Image) -> Image.Image:
    """Scales a loaded image with one deep channel to 8 bits, with rounding.

    The range is the one that the file states: the largest value of a PGM file, the number of bits of a PNG
    file, and for TIFF the tags SMinSampleValue and SMaxSampleValue, a MaxSampleValue that is the largest of
    a number of bits (such as 4095), or else the number of bits. Floating-point values from 0 to 1 need no
    statement.

    Args:
        image: An image for which `is_deep` is True.

    Returns:
        An image of mode L.

    Raises:
        ValueError: If the range is unknown, or a value is not finite.
    """
    tags: Mapping[int, Any] = getattr(image, "tag_v2", {})
    values = np.asarray(image)
    if _has_signed_bytes(image):
        values = values.view(np.int8)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ValueError("some pixels are not finite numbers; replace them, and convert the image to 8 bits")
    low, high = _range(image, values, tags)
    scaled = values.astype(np.float32)
    scaled -= low
    scaled *= 255 / (high - low)
    gray = np.rint(scaled, out=scaled).clip(0, 255).astype(np.uint8)
    if tags.get(_PHOTOMETRIC) == 0:  # Zero is white; Pillow inverts 8 bits only.
        gray = 255 - gray
    if (transparent := image.info.get("transparency")) is not None:
        gray[values == transparent] = 255
    return Image.fromarray(gray)


def _range(image: Image.Image, values: np.ndarray, tags: Mapping[int, Any]) -> tuple[float, float]:
    """Returns the values that become black and white."""
    if stated := _stated_range(tags):
        return stated
    least, largest = float(values.min()), float(values.max())
    most = _first(tags.get(_MAX_SAMPLE, 0))
    if most in _DEPTHS and least >= 0 and largest <= most:
        return 0.0, float(most)
    if image.mode.startswith("I;16"):
        return 0.0, 2.0 ** _first(tags.get(_BITS, 16)) - 1
    if image.mode == "I" and image.format in ("PPM", "PNG"):  # Pillow scales the largest value to 65535.
        return 0.0, 65535.0
    if image.mode == "F" and least >= 0 and largest <= 1:
        return 0.0, 1.0
    raise ValueError(
        f"{_kind(image, tags)} pixels from {least:g} to {largest:g} have no agreed range; convert the image "
        "to 8 or 16 bits first, or state the range in the TIFF tags SMinSampleValue and SMaxSampleValue"
    )


def _stated_range(tags: Mapping[int, Any]) -> tuple[float, float] | None:
    """Returns the range of the samples that a TIFF file states; None if there is none, or it is invalid."""
    if _SMAX_SAMPLE not in tags:
        return None
    try:
        low, high = float(_first(tags.get(_SMIN_SAMPLE, 0))), float(_first(tags[_SMAX_SAMPLE]))
    except (TypeError, ValueError):
        return None
    return (low, high) if math.isfinite(low) and math.isfinite(high) and low < high else None


def _kind(image: Image.Image, tags: Mapping[int, Any]) -> str:
    if image.mode == "F":
        return "floating-point"
    sign = "signed " if _first(tags.get(_SAMPLE_FORMAT, 1)) == 2 else ""
    return f"{sign}{_first(tags.get(_BITS, 32))}-bit integer"


def _first(value: Any) -> Any:
    """Returns the value of the first channel of a tag with a value for each."""
    return value[0] if isinstance(value, (tuple, list)) else value
