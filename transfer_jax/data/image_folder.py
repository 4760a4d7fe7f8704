"""Image files on disk: a folder of class folders, or a CSV table of paths and labels."""

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


TRAINING = ("train", "training")
HELD_OUT = ("val", "valid", "validation", "dev", "test", "testing")
"""What folders of a split are called; of several that are held out, the first of these is taken."""


def from_folder(path: str | os.PathLike[str]) -> ImageDataset:
    """Reads a folder with one sub-folder a class.

    Images are found at any depth below their class folder, by extension. Names that begin with a dot are
    ignored, and so are links to folders inside a class folder. Classes and images are sorted by name.

    A folder that holds `train` and one of `val`, `validation` and `test`, each with class folders, is split
    already: these are then the images to train and to evaluate on. Where both `val` and `test` are there,
    `test` is left alone. Where only `train` has class folders, it is read alone.

    Args:
        path: The folder that holds the class folders.

    Returns:
        The images, named by their path relative to `path`.

    Raises:
        ValueError: If there is no such folder, it has fewer than two class folders, a class folder holds no
            images, or a class is held out that there is nothing to train on; the message says what was found.
    """
    root = Path(path)
    if not root.is_dir():
        raise ValueError(f"there is no folder {str(root)!r}")
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
    trained = {name for name, aside in zip(classes, held_out, strict=True) if not aside}
    if unknown := sorted({*class_names} - trained):
        raise ValueError(f"{str(root)!r} holds out classes that it does not train on: {_abridged(unknown)}")
    labels = [class_names.index(name) for name in classes]
    dataset = _from_files(files, names, labels, class_names)
    return dataclasses.replace(dataset, held_out=np.array(held_out)) if len(parts) > 1 else dataset


def own_split(root: Path) -> list[tuple[Path, bool]]:
    """The folders that hold the class folders, and whether each is to evaluate on; often just the root."""
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
            f"{str(root)!r} has no class folders: expected one sub-folder a class, found {_abridged(found)}"
        )
    if len(folders) == 1:
        raise ValueError(
            f"{str(root)!r} has the single class folder {folders[0].name!r}; two classes are the least"
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
    """Reads a UTF-8, comma-separated table with a header row, one image a row.

    Args:
        path: The table.
        image_column: Column of image paths; by default `path`, or the first column if there is none such.
        label_column: Column of class names; by default `label`, or the second column.
        root: What relative image paths are relative to; by default the folder of the table.
        group_column: Column of the groups of the images; by default `group`, if there is such a column
            besides the other two. Where it is empty the group is `none`.

    Returns:
        The images in the order of the rows, named as in the table. The classes are the sorted labels.

    Raises:
        ValueError: If there is no such table, a column or a label is missing, an image is listed twice,
            or there are fewer than two classes.
        FileNotFoundError: If images are missing; the message names the first ones.
    """
    table = Path(path)
    if not table.is_file():
        raise ValueError(f"there is no file {str(table)!r}")
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
            f"{str(table)!r}: column {label_column!r} has the classes {list(class_names)}; two are the least"
        )
    base = table.parent if root is None else Path(root)
    files = [base / name for name in names]
    if missing := [str(file) for file in files if not file.is_file()]:
        raise FileNotFoundError(
            f"{len(missing)} of {len(files)} images of {str(table)!r} do not exist: {_abridged(missing)}"
        )
    position = {name: i for i, name in enumerate(class_names)}
    found = _from_files(files, names, [position[label] for _, _, label, _ in rows], class_names)
    if group_column is None:
        return found
    return dataclasses.replace(found, groups=np.array([group for *_, group in rows], dtype=np.str_))


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
    """The files below a folder, sorted by their path, less hidden files and folders."""
    files = []
    for where, folders, here in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        files += [Path(where, name) for name in here if not name.startswith(".")]
    return sorted(files)


def _column(table: Path, columns: list[str], wanted: str | None, usual: str, position: int) -> str:
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
