"""Image files on disk: a dataset of them, and the files that paths name."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from transfer_jax.data.dataset import ImageDataset
from transfer_jax.data.file_endings import EXTENSIONS
from transfer_jax.data.folder_tree import UNKNOWN, Folder
from transfer_jax.data.left_out import LeftOut, left_out_notes
from transfer_jax.fields import as_tuple
from transfer_jax.tasks import SingleLabel, Task


def from_files(
    files: Sequence[str | os.PathLike[str]],
    names: Sequence[str],
    labels: Sequence[int] | np.ndarray,
    class_names: tuple[str, ...],
    stamps: Sequence[tuple[int, int]] | None = None,
    task: Task | None = None,
) -> ImageDataset:
    """Returns a dataset of image files, which are read when they are needed.

    A missing file is a bad image: reading it raises `BadImageError`.

    Args:
        files: The files, `n` of them.
        names: The name of each image.
        labels: The position of each image's class in `class_names`, or labels as their task has them.
        class_names: The classes, labels or quantities.
        stamps: Size and time of modification of each file, as in `FoundImages`; None looks at the files.
        task: The task; None for one class for each image.
    """
    if stamps is None:
        stamps = [file_stamp(file) for file in files]
    task = task or SingleLabel(class_names)
    labels = np.asarray(labels, dtype=None if isinstance(labels, np.ndarray) else np.int32)
    lines = [
        f"{name}\0{size}\0{modified}\0{label}\n"
        for name, (size, modified), label in zip(names, stamps, task.label_texts(labels), strict=True)
    ]
    return ImageDataset(
        read=ReadFiles(files),
        labels=labels,
        names=names,
        class_names=class_names,
        task=task,
        sizes=np.array([size for size, _ in stamps], dtype=np.int64),
        fingerprint=hashlib.sha256("".join(sorted(lines)).encode(errors="surrogatepass")).hexdigest(),
    )


class ReadFiles:
    """A `Read` of files. Other processes may receive it.

    Args:
        files: The paths.
    """

    def __init__(self, files: Sequence[str | os.PathLike[str]]) -> None:
        self._files = files

    def __call__(self, index: int) -> bytes:
        return read_file(self._files[index])


def file_stamp(file: str | os.PathLike[str]) -> tuple[int, int]:
    """Returns the size in bytes and the time of modification in nanoseconds; `UNKNOWN` for a missing file."""
    try:
        status = os.stat(file)
    except OSError:
        return UNKNOWN
    return status.st_size, status.st_mtime_ns


def read_file(file: str | os.PathLike[str]) -> bytes:
    """Returns the contents of a file.

    Raises:
        FileNotFoundError: If it is missing; the message names the target of a link.
        OSError: If it cannot be read.
    """
    try:
        with open(file, "rb") as opened:
            return opened.read()
    except FileNotFoundError:
        if os.path.islink(file):
            raise FileNotFoundError(f"a link to {os.readlink(file)!r}, which does not exist") from None
        raise


def image_files(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
) -> tuple[list[Path], tuple[str, ...]]:
    """Returns the files among paths, and the images in the folders among them, those of each folder sorted.

    The images in a folder are those that `from_folder` finds: at any depth, by their endings, or by their
    contents if they have no ending; without hidden files and what systems leave in folders.

    Args:
        paths: Files and folders; a single path is a list of one.

    Returns:
        The files; and sentences about the files in the folders that are left out, with their numbers.

    Raises:
        ValueError: If there are no paths.
        FileNotFoundError: If a path does not exist or is no file, or a folder has no images.
    """
    files: list[Path] = []
    left_out: LeftOut = Counter()
    listed = as_tuple(paths)
    if foreign := [path for path in listed if not isinstance(path, str | os.PathLike)]:
        raise ValueError(
            f"paths of image files or folders are needed, got {type(foreign[0]).__name__}; "
            "for images in memory, make a dataset with from_arrays and call predict_dataset"
        )
    if "" in listed:
        raise ValueError("a path is empty; give the paths of image files or of folders")
    for path in map(Path, listed):
        if path.is_dir():
            found = Folder(os.fspath(path)).images()
            if not found.files:
                notes = "; ".join(left_out_notes(found.left_out)) or "it is empty"
                raise FileNotFoundError(
                    f"no images in the folder {str(path)!r}: {notes} (images are {' '.join(EXTENSIONS)})"
                )
            files.extend(map(Path, found.files))
            left_out.update(found.left_out)
        elif path.is_file():
            files.append(path)
        elif path.exists():
            raise FileNotFoundError(f"{str(path)!r} is neither a file nor a folder")
        else:
            raise FileNotFoundError(f"no image or folder at {str(path)!r}")
    if not files:
        raise ValueError("no image is given; give the paths of image files or of folders")
    return files, left_out_notes(left_out)


def abridged(items: Sequence[str], limit: int = 5) -> str:
    """Returns the first items, quoted and separated by commas, and the number of the others."""
    shown = ", ".join(map(repr, items[:limit]))
    return f"{shown} and {len(items) - limit:,} more" if len(items) > limit else shown or "nothing"
