"""The folder of files that all runs of a user share: downloads, prepared datasets, compiled programs."""

import os
import tempfile
from pathlib import Path


def user_cache(name: str) -> Path:
    """Returns a folder in `~/.cache/transfer_jax`, or in the folder of temporary files without a usable home.

    A container or a service may have no home, one that does not exist, one that is read-only or of another
    user, or a user id without a name. Nothing is created.

    Args:
        name: Name of the folder.
    """
    try:
        folder = Path.home() / ".cache" / "transfer_jax" / name
    except RuntimeError:  # No variable HOME, and no entry for this user.
        return _temporary() / name
    return folder if os.path.isdir(folder) or can_create(folder) else _temporary() / name


def can_create(path: Path) -> bool:
    """Returns whether this process may write a file or folder, and create missing folders above it."""
    existing = next((parent for parent in (path, *path.parents) if os.path.exists(parent)), path)
    return os.access(existing, os.W_OK | os.X_OK) and os.path.isdir(existing)


def _temporary() -> Path:
    user = os.getuid() if hasattr(os, "getuid") else "user"
    return Path(tempfile.gettempdir(), f"transfer_jax-{user}")
