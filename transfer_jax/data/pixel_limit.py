"""A limit on the number of pixels of an image, checked before it is decoded."""

import contextlib
import io

from PIL import Image

from transfer_jax.data.decode import FORMATS, BadImageError


def check_pixels(encoded: bytes, name: str, most: int) -> None:
    """Checks the number of pixels in the header of an image file; other errors are left to decoding.

    Args:
        encoded: The contents of the file.
        name: Name of the image in error messages.
        most: Largest number of pixels.

    Raises:
        BadImageError: If the image has more.
    """
    size = None
    try:
        with contextlib.closing(Image.open(io.BytesIO(encoded), formats=FORMATS)) as image:
            size = image.size
    except Image.DecompressionBombError as error:
        raise BadImageError(f"{name}: too large ({error})") from None
    except Exception:  # Decoding says what is wrong.
        return
    width, height = size
    if width * height > most:
        raise BadImageError(
            f"{name}: {width} x {height} pixels are more than {most / 1e6:g} megapixels; make it smaller"
        )
