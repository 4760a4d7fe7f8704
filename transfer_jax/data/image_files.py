"""Image files on disk: which files are images, and a dataset of them."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from transfer_jax.data.dataset import ImageDataset

EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".avif")
"""Extensions of image files, in lower case."""


def from_files(
    files: Sequence[Path], names: Sequence[str], labels: Sequence[int], class_names: tuple[str, ...]
) -> ImageDataset:
    """Returns a dataset of image files, which are read when they are needed.

    Args:
        files: The files, `n` of them.
        names: The name of each image.
        labels: The position of each image's class in `class_names`.
        class_names: The classes.
    """
    lines, sizes = [], []
    for file, name, label in zip(files, names, labels, strict=True):
        status = file.stat()
        sizes.append(status.st_size)
        lines.append(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\0{class_names[label]}\n")
    return ImageDataset(
        read=lambda i: files[i].read_bytes(),
        labels=np.asarray(labels, dtype=np.int32),
        names=names,
        class_names=class_names,
        sizes=np.asarray(sizes, dtype=np.int64),
        fingerprint=hashlib.sha256("".join(sorted(lines)).encode()).hexdigest(),
    )


def visible_folders(folder: Path) -> list[Path]:
    """Returns the folders in a folder, sorted by name, without hidden ones."""
    return sorted(child for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))


def visible_files(folder: Path) -> list[Path]:
    """Returns the files below a folder, sorted by path, without hidden files and folders."""
    files = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        files += [Path(parent, name) for name in names if not name.startswith(".")]
    return sorted(files)


def abridged(items: Sequence[str], limit: int = 5) -> str:
    """Returns the first items, quoted and separated by commas, and the number of the others."""
    shown = ", ".join(map(repr, items[:limit]))
    return f"{shown} and {len(items) - limit} more" if len(items) > limit else shown or "nothing"
