"""Image files as `data:` URLs, which contain the whole image."""

import base64
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

MAX_BYTES = 1_500_000
"""The total size of the images of a section."""

_MEDIA_TYPES = {".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".png": "image/png", ".webp": "image/webp"}


def inline_images(
    folder: Path, records: Sequence[Mapping[str, Any]], max_bytes: int = MAX_BYTES
) -> Iterator[tuple[Mapping[str, Any], str]]:
    """Yields records with their images as `data:` URLs, until the images reach a total size.

    Records whose image is missing or has an unsupported type are skipped.

    Args:
        folder: The folder of the images.
        records: The records; `image` is the file name of the image.
        max_bytes: The total size of all images.
    """
    for record in records:
        path = folder / record["image"]
        media_type = _MEDIA_TYPES.get(path.suffix.lower())
        if media_type is None or not path.is_file():
            continue
        content = path.read_bytes()
        max_bytes -= len(content)
        if max_bytes < 0:
            return
        yield record, f"data:{media_type};base64,{base64.b64encode(content).decode()}"
