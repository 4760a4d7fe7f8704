"""Paths that mean the same from any folder."""

import os
from pathlib import Path

from transfer_jax.storage.remote import is_remote


def absolute_path(place: str | os.PathLike[str]) -> str:
    """Returns a path with the current folder and the home folder written out; an address is not changed."""
    if is_remote(place):
        return os.fspath(place)
    path = Path(os.path.expanduser(place)).absolute()
    return str(path.resolve() if ".." in path.parts else path)
