"""The kinds of files by the endings of their names, and by their contents if they have no ending."""

import re

from PIL import Image

from transfer_jax.data.decode import FORMATS

EXTENSIONS = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".mpo", ".apng", ".webp", ".gif", ".bmp", ".dib"),
    *(".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".avif"),
)
"""Endings of image files, in lower case."""
UNREADABLE = frozenset(
    (
        *(".heic", ".heif", ".hif", ".jxl", ".jp2", ".j2k", ".jpf", ".jpx", ".jxr", ".tga", ".ico", ".icns"),
        *(".psd", ".svg", ".eps", ".pcx", ".exr", ".hdr", ".dcm", ".dicom", ".nii", ".fits", ".qoi", ".sgi"),
        *(".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".srf", ".sr2", ".raf", ".orf", ".rw2"),
        *(".pef", ".srw", ".x3f", ".raw", ".dds", ".xpm", ".pfm", ".ras", ".wdp"),
    )
)
"""Endings of image files that are not read, in lower case."""
_IMAGES = frozenset(EXTENSIONS)
# Files of web pages keep the query or the size of their address: `a.jpg?w=300`, `a.jpg:large`, `a.jpg!small`.
_ADDRESS = re.compile(rf"({'|'.join(map(re.escape, EXTENSIONS))})[?:!&@]")
# A file such as `Fig. 3` or `photo.1` has no ending.
_ENDING = re.compile(r"\.[a-z][a-z0-9_-]{0,15}~?")


def ending(name: str) -> str:
    """Returns the ending of a file name in lower case, with its dot; an empty string if it has none."""
    lower = name.lower()
    found = lower[lower.rfind(".") :] if "." in lower else ""
    if found in _IMAGES:
        return found
    if match := _ADDRESS.search(lower):
        return match[1]
    return found if _ENDING.fullmatch(found) else ""


def has_image_ending(name: str) -> bool:
    """Returns True if a file is an image by its name."""
    return ending(name) in _IMAGES


def has_image_content(path: str) -> bool:
    """Returns True if a file begins like an image that can be read."""
    try:
        with open(path, "rb") as file:
            try:
                Image.open(file, formats=FORMATS).close()
            except Image.DecompressionBombError:
                return True
    except Exception:  # Decoders raise many kinds of errors for other files.
        return False
    return True
