"""Image files as addresses that hold all of them."""

import base64
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

MAX_BYTES = 1_500_000
"""Of all images of a section together."""

_KINDS = {".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".png": "image/png", ".webp": "image/webp"}


def inline_images(
    folder: Path, records: Sequence[Mapping[str, Any]], most: int = MAX_BYTES
) -> Iterator[tuple[Mapping[str, Any], str]]:
    """Records that name an `image` in a folder, each with that image as a `data:` address.

    Those whose image is not there, or is of another kind, are left out, and those behind the last one that
    there is room for.

    Args:
        folder: Where the images are.
        records: What is said of each.
        most: Bytes of all images together.
    """
    for record in records:
        path = folder / record["image"]
        kind = _KINDS.get(path.suffix.lower())
        if kind is None or not path.is_file():
            continue
        content = path.read_bytes()
        most -= len(content)
        if most < 0:
            return
        yield record, f"data:{kind};base64,{base64.b64encode(content).decode()}"
