"""Images of examples in any form: Pillow images, arrays, tensors, encoded files and paths."""

import io
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from transfer_jax.data.decode import FORMATS, BadImageError, decode_image
from transfer_jax.data.file_endings import has_image_ending
from transfer_jax.data.image_files import read_file

_ORIENTATION_TAG = 0x0112
_ROUNDING = 1e-3
"""Largest distance to 0..1 of a floating-point value that counts as rounding."""
_ENCODED = (bytes, bytearray, memoryview)
_ADVICE = "for arrays that are no 8-bit gray or RGB images, use inputs=(...) in place of image"


def is_image(value: Any) -> bool:
    """Returns True if a value of an example can be an image; a text is one if it ends like an image file."""
    if isinstance(value, Image.Image):
        return True
    if isinstance(value, _ENCODED):
        return _is_encoded(bytes(value))
    if isinstance(value, str | os.PathLike):
        return has_image_ending(os.fspath(value))
    if isinstance(value, Mapping):
        return {*value} == {"bytes", "path"}
    shape = getattr(value, "shape", ())
    return len(shape) == 2 or (len(shape) == 3 and (_channels_last(shape) or _channels_first(shape)))


def is_floating(value: Any) -> bool:
    """Returns True for an array or tensor of floating-point numbers."""
    return hasattr(value, "shape") and "float" in str(getattr(value, "dtype", ""))


def image_content(value: Any, name: str) -> bytes | np.ndarray:
    """Returns an image of an example as `ImageDataset.read` does.

    Args:
        value: A Pillow image; the bytes or the path of a file; a dictionary of `bytes` and `path`, as
            in Hugging Face datasets; or an array or tensor `(height, width)`, `(height, width, channels)` or
            `(channels, height, width)` with 1, 3 or 4 channels. Floating-point values in 0..1 become
            0..255, with rounding; integers in 0..255 stay as they are; False and True become 0 and 255.
        name: Name of the image, for messages.

    Returns:
        The encoded file, or uint8 `(height, width)` or `(height, width, 3)`.

    Raises:
        OSError: If a file cannot be read.
        BadImageError: If the value is no image, or its values are out of range.
    """
    if isinstance(value, Mapping) and {*value} == {"bytes", "path"}:
        value = value["path"] if value["bytes"] is None else value["bytes"]
    if isinstance(value, Image.Image):
        return pillow_pixels(value, name)
    if isinstance(value, _ENCODED):
        return bytes(value)
    if isinstance(value, str | os.PathLike):
        return read_file(value)
    if not hasattr(value, "shape"):
        raise BadImageError(
            f"{name}: expected a Pillow image, an array, the bytes of a file or a path, "
            f"got {type(value).__name__}"
        )
    return _pixels(np.asarray(value), name)


def pillow_pixels(image: Image.Image, name: str) -> np.ndarray:
    """Returns the pixels of a Pillow image, uint8 `(height, width)` or `(height, width, 3)`.

    They are those of the file of such an image: upright, without transparency, scaled to 8 bits.

    Args:
        image: The image, of any mode.
        name: Name of the image, for messages.
    """
    orientation = image.getexif().get(_ORIENTATION_TAG, 1)
    if image.mode in ("L", "RGB") and orientation == 1 and "transparency" not in image.info:
        return np.asarray(image)
    stream = io.BytesIO()
    kind = "TIFF" if image.mode in ("CMYK", "F", "I", "LAB", "YCbCr") else "PNG"
    image.save(stream, kind, exif=image.getexif())
    return decode_image(stream.getvalue(), name)


def _pixels(array: np.ndarray, name: str) -> np.ndarray:
    """Returns an array of pixels as uint8 `(height, width)` or `(height, width, 3)`."""
    shape = array.shape
    if not (len(shape) == 2 or (len(shape) == 3 and (_channels_last(shape) or _channels_first(shape)))):
        raise BadImageError(
            f"{name}: expected the shape (height, width), (height, width, channels) or (channels, height, "
            f"width) with 1, 3 or 4 channels, got {shape}; {_ADVICE}"
        )
    if array.ndim == 3 and not _channels_last(shape):
        array = array.transpose(1, 2, 0)
    array = _to_uint8(array, name) if array.size else array.astype(np.uint8)
    if array.ndim == 3 and array.shape[-1] == 1:
        return array[..., 0]
    if array.ndim == 3 and array.shape[-1] == 4:
        return pillow_pixels(Image.fromarray(array), name)
    return array


def _to_uint8(array: np.ndarray, name: str) -> np.ndarray:
    """Returns pixels as uint8; see `image_content`."""
    if array.dtype == np.uint8:
        return array
    if array.dtype == bool:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype.kind not in "iuf":
        raise BadImageError(f"{name}: expected numbers, got {array.dtype}; {_ADVICE}")
    least, largest = float(array.min()), float(array.max())
    if array.dtype.kind in "iu":
        if least < 0 or largest > 255:
            raise BadImageError(
                f"{name}: {array.dtype} pixels must be in 0..255, got {least:g}..{largest:g}; scale them "
                f"in the source; {_ADVICE}"
            )
        return array.astype(np.uint8)
    if not (least >= -_ROUNDING and largest <= 1 + _ROUNDING):  # False for NaN, too.
        hint = "undo a normalization with mean and std, which training does itself" if least < 0 else ""
        hint = "convert values in 0..255 with .astype('uint8')" if least >= 0 and largest <= 255 else hint
        raise BadImageError(
            f"{name}: floating-point pixels must be in 0..1, got {least:g}..{largest:g}; "
            f"{hint or 'replace the values that are no finite numbers'}; {_ADVICE}"
        )
    return np.rint(np.clip(array, 0, 1) * 255).astype(np.uint8)


def _channels_last(shape: tuple[int, ...]) -> bool:
    return shape[-1] in (1, 3, 4)


def _channels_first(shape: tuple[int, ...]) -> bool:
    return shape[0] in (1, 3, 4)


def _is_encoded(content: bytes) -> bool:
    """Returns True if bytes are an image file that Pillow knows."""
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS):
            return True
    except Exception:  # Damaged files raise many kinds of errors.
        return False
