"""Datasets of image files on disk: a folder of class folders, or a CSV table of paths and labels."""

import collections
import csv
import dataclasses
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from transfer_jax.data.dataset import ImageDataset

EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".avif")
"""Extensions of image files, in lower case."""

TRAINING = ("train", "training")
"""Names of the folder of training images in a dataset with a split of its own."""
HELD_OUT = ("val", "valid", "validation", "dev", "test", "testing")
"""Names of the folder of validation images; if there are several, the first one in this order is used."""


def from_folder(path: str | os.PathLike[str]) -> ImageDataset:
    """Reads a folder with one subfolder for each class.

    Images are found by extension at any depth below their class folder. Names that start with a dot are
    ignored, and so are links to folders inside a class folder. Classes and images are sorted by name.

    A folder that contains `train` and one of `val`, `validation` and `test`, each with class folders, has a
    split of its own: these are the training and the validation images. If both `val` and `test` exist, `test`
    is not read. If only `train` has class folders, it is read alone.

    Args:
        path: The folder of the class folders.

    Returns:
        The dataset. The name of an image is its path relative to `path`.

    Raises:
        ValueError: If the folder does not exist, has fewer than two class folders, a class folder has no
            images, or a class has validation images but no training images. The message lists what was found.
    """
    root = Path(path)
    if not root.is_dir():
        raise ValueError(f"the folder {str(root)!r} does not exist")
    parts = own_split(root)
    files, classes, held_out = [], [], []
    for part, is_held_out in parts:
        for folder in _class_folders(part):
            images = _images_below(folder)
            files += images
            classes += [folder.name] * len(images)
            held_out += [is_held_out] * len(images)
    names = [file.relative_to(root).as_posix() for file in files]
    class_names = tuple(sorted(set(classes)))
    train_classes = {name for name, aside in zip(classes, held_out, strict=True) if not aside}
    if unknown := sorted({*class_names} - train_classes):
        raise ValueError(
            f"{str(root)!r} has classes with validation images but no training images: {_abridged(unknown)}"
        )
    labels = [class_names.index(name) for name in classes]
    dataset = _from_files(files, names, labels, class_names)
    return dataclasses.replace(dataset, held_out=np.array(held_out)) if len(parts) > 1 else dataset


def own_split(root: Path) -> list[tuple[Path, bool]]:
    """Returns the folders of class folders, each with True if its images are validation images.

    Args:
        root: The folder of a dataset. It is the only result if the dataset has no split of its own.
    """
    folders = {child.name.lower(): child for child in _visible_folders(root)}
    if not {*folders} <= {*TRAINING, *HELD_OUT}:
        return [(root, False)]
    with_classes = {name: folder for name, folder in folders.items() if _visible_folders(folder)}
    train = [with_classes[name] for name in TRAINING if name in with_classes]
    held_out = [with_classes[name] for name in HELD_OUT if name in with_classes]
    if not train:
        return [(root, False)]
    return [(train[0], False), *((part, True) for part in held_out[:1])]


def _class_folders(root: Path) -> list[Path]:
    folders = _visible_folders(root)
    if not folders:
        found = sorted(child.name for child in root.iterdir())
        raise ValueError(
            f"{str(root)!r} has no class folders: expected one subfolder a class, found {_abridged(found)}"
        )
    if len(folders) == 1:
        raise ValueError(
            f"{str(root)!r} has only the class folder {folders[0].name!r}; at least two classes are needed"
        )
    return folders


def _images_below(folder: Path) -> list[Path]:
    visible = _visible_files(folder)
    images = [file for file in visible if file.suffix.lower() in EXTENSIONS]
    if not images:
        found = sorted(file.name for file in visible)
        raise ValueError(
            f"class folder {str(folder)!r} has no images ({' '.join(EXTENSIONS)}), found {_abridged(found)}"
        )
    return images


def _visible_folders(folder: Path) -> list[Path]:
    return sorted(child for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))


def from_csv(
    path: str | os.PathLike[str],
    image_column: str | None = None,
    label_column: str | None = None,
    root: str | os.PathLike[str] | None = None,
    group_column: str | None = None,
) -> ImageDataset:
    """Reads a UTF-8, comma-separated table with a header row and one image in each row.

    Args:
        path: The table.
        image_column: Name of the column of image paths; None for `path`, or the first column if there is no
            `path`.
        label_column: Name of the column of class names; None for `label`, or the second column if there is no
            `label`.
        root: Folder that relative image paths start from; None for the folder of the table.
        group_column: Name of the column of the groups of the images; None for `group` if there is such a
            column, otherwise no groups. The group of an empty field is `none`.

    Returns:
        The dataset in the order of the rows. The names are the paths in the table, the classes the sorted
        labels.

    Raises:
        ValueError: If the table does not exist, a column or a label is missing, an image is listed twice, or
            there are fewer than two classes.
        FileNotFoundError: If image files are missing. The message names the first ones.
    """
    table = Path(path)
    if not table.is_file():
        raise ValueError(f"the file {str(table)!r} does not exist")
    with table.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        columns = list(reader.fieldnames or ())
        image_column = _column(table, columns, image_column, "path", 0)
        label_column = _column(table, columns, label_column, "label", 1)
        if group_column is not None or "group" in {*columns} - {image_column, label_column}:
            group_column = _column(table, columns, group_column, "group", len(columns))
        rows = [
            (reader.line_num, row[image_column], row[label_column], row.get(group_column) or "none")
            for row in reader
        ]
    for line, name, label, _ in rows:
        if not name or not label:
            raise ValueError(
                f"{str(table)!r}, line {line}: empty {label_column if name else image_column!r} column"
            )
    names = [name for _, name, _, _ in rows]
    if repeated := [name for name, count in collections.Counter(names).items() if count > 1]:
        raise ValueError(f"{str(table)!r} lists images more than once: {_abridged(repeated)}")
    class_names = tuple(sorted({label for _, _, label, _ in rows}))
    if len(class_names) < 2:
        raise ValueError(
            f"{str(table)!r}: column {label_column!r} has the classes {list(class_names)}, needs two or more"
        )
    base = table.parent if root is None else Path(root)
    files = [base / name for name in names]
    if missing := [str(file) for file in files if not file.is_file()]:
        raise FileNotFoundError(
            f"{len(missing)} of {len(files)} images of {str(table)!r} do not exist: {_abridged(missing)}"
        )
    position = {name: i for i, name in enumerate(class_names)}
    dataset = _from_files(files, names, [position[label] for _, _, label, _ in rows], class_names)
    if group_column is None:
        return dataset
    return dataclasses.replace(dataset, groups=np.array([group for *_, group in rows], dtype=np.str_))


def _from_files(
    files: Sequence[Path], names: Sequence[str], labels: Sequence[int], class_names: tuple[str, ...]
) -> ImageDataset:
    lines = []
    for file, name, label in zip(files, names, labels, strict=True):
        status = file.stat()
        lines.append(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\0{class_names[label]}\n")
    return ImageDataset(
        read=lambda i: files[i].read_bytes(),
        labels=np.asarray(labels, dtype=np.int32),
        names=names,
        class_names=class_names,
        fingerprint=hashlib.sha256("".join(sorted(lines)).encode()).hexdigest(),
    )


def _visible_files(folder: Path) -> list[Path]:
    """Returns the files below a folder, sorted by path, without hidden files and folders."""
    files = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        files += [Path(parent, name) for name in names if not name.startswith(".")]
    return sorted(files)


def _column(table: Path, columns: list[str], wanted: str | None, usual: str, position: int) -> str:
    """Returns the wanted column if given, else the usual one, else the one at a position."""
    if wanted is None and usual in columns:
        return usual
    if wanted is None and position < len(columns):
        return columns[position]
    if wanted is None or wanted not in columns:
        raise ValueError(f"{str(table)!r} has no column {wanted or usual!r}; its columns are {columns}")
    return wanted


def _abridged(items: Sequence[str], limit: int = 5) -> str:
    shown = ", ".join(map(repr, items[:limit]))
    return f"{shown} and {len(items) - limit} more" if len(items) > limit else shown or "nothing"
