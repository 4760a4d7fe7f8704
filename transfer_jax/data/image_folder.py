"""Datasets of a folder with one subfolder for each class."""

import dataclasses
import os
from pathlib import Path

import numpy as np

from transfer_jax.data.dataset import ImageDataset
from transfer_jax.data.image_files import EXTENSIONS, abridged, from_files, visible_files, visible_folders

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
            f"{str(root)!r} has classes with validation images but no training images: {abridged(unknown)}"
        )
    labels = [class_names.index(name) for name in classes]
    dataset = from_files(files, names, labels, class_names)
    return dataclasses.replace(dataset, held_out=np.array(held_out)) if len(parts) > 1 else dataset


def own_split(root: Path) -> list[tuple[Path, bool]]:
    """Returns the folders of class folders, each with True if its images are validation images.

    Args:
        root: The folder of a dataset. It is the only result if the dataset has no split of its own.
    """
    folders = {child.name.lower(): child for child in visible_folders(root)}
    if not {*folders} <= {*TRAINING, *HELD_OUT}:
        return [(root, False)]
    with_classes = {name: folder for name, folder in folders.items() if visible_folders(folder)}
    train = [with_classes[name] for name in TRAINING if name in with_classes]
    held_out = [with_classes[name] for name in HELD_OUT if name in with_classes]
    if not train:
        return [(root, False)]
    return [(train[0], False), *((part, True) for part in held_out[:1])]


def _class_folders(root: Path) -> list[Path]:
    folders = visible_folders(root)
    if not folders:
        found = sorted(child.name for child in root.iterdir())
        raise ValueError(
            f"{str(root)!r} has no class folders: expected one subfolder a class, found {abridged(found)}"
        )
    if len(folders) == 1:
        raise ValueError(
            f"{str(root)!r} has only the class folder {folders[0].name!r}; at least two classes are needed"
        )
    return folders


def _images_below(folder: Path) -> list[Path]:
    visible = visible_files(folder)
    images = [file for file in visible if file.suffix.lower() in EXTENSIONS]
    if not images:
        found = sorted(file.name for file in visible)
        raise ValueError(
            f"class folder {str(folder)!r} has no images ({' '.join(EXTENSIONS)}), found {abridged(found)}"
        )
    return images
