"""Names of images, files and commands for readers elsewhere, without the folders of this machine."""

import re
import shlex
from collections.abc import Sequence

_PLACE = re.compile(
    r"(?P<prefix>(?:--[\w-]+=)?(?:(?:folder|csv):)?)(?P<path>(?:~|/|[A-Za-z]:[\\/]|\.\.[\\/]).*)"
)
"""An absolute path, or one that leaves the current folder, with what stands before it."""


def public_place(place: str) -> str:
    """Returns the name of a path without its folders: `/home/ann/photos` becomes `photos`.

    Names that are no paths of a machine, such as `tfds:NAME`, `photos` or an address on the web, are returned
    as they are.
    """
    found = _PLACE.fullmatch(place)
    if found is None:
        return place
    path, _, query = found["path"].partition("?")
    name = re.split(r"[\\/]", path.rstrip("\\/"))[-1] or "images"
    return f"{found['prefix']}{name}{'?' * bool(query)}{query}"


def public_command(words: Sequence[str]) -> str:
    """Returns a command as a shell reads it, with `public_place` for each word."""
    return shlex.join(public_place(word) for word in words)
