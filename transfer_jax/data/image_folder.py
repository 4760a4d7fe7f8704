"""Datasets of a folder with one subfolder for each class."""

import dataclasses
import os
import unicodedata
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from transfer_jax.data.class_folders import class_name, images_without_class, read_class_folders
from transfer_jax.data.dataset import ImageDataset
from transfer_jax.data.file_list import ListSource
from transfer_jax.data.folder_tree import Folder
from transfer_jax.data.image_files import abridged, from_files
from transfer_jax.data.index import IndexProgress
from transfer_jax.data.left_out import LeftOut, left_out_notes
from transfer_jax.data.split_folders import find_split, part_of_split, table_hint
from transfer_jax.data.targets import class_order
from transfer_jax.tasks import make_task


@dataclasses.dataclass(frozen=True)
class FolderImages:
    """The images in a folder of class folders.

    Attributes:
        files: The paths.
        stamps: Size and time of each file, as in `FoundImages`.
        names: The paths relative to the folder.
        labels: The position of each image's class in `class_names`.
        class_names: The classes.
        parts: `training`, `validation` or `test` for each image.
        notes: Sentences about what was left out or is unusual.
    """

    files: list[str]
    stamps: list[tuple[int, int]]
    names: list[str]
    labels: list[int]
    class_names: tuple[str, ...]
    parts: list[str]
    notes: tuple[str, ...]

    def mask(self, part: str) -> np.ndarray | None:
        """Returns bool `(n,)`, True for the images of a part; None if there is no such part."""
        return np.array(self.parts) == part if part in self.parts else None


_ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".tbz2", ".xz", ".txz", ".zst", ".7z", ".rar")


def from_folder(
    path: str | os.PathLike[str],
    *,
    least_classes: int = 2,
    task: str = "auto",
    progress: IndexProgress | None = None,
) -> ImageDataset:
    """Reads a folder with one subfolder for each class.

    Images are found at any depth below their class folder, by the ending of their names, or by their contents
    if they have no ending. Classes and images are sorted by name. Links are followed. Hidden files and
    folders, and those that systems create (`__MACOSX`, `@eaDir`, `Thumbs.db`), are left out, and so are class
    folders without images. `ImageDataset.notes` has the number of files of each kind that are left out.

    A folder that contains a folder of training images (`train`, `training`, `train_set`, …), and one of
    validation images (`val`, `validation`, `dev`, …) or of test images (`test`, `testing`, …), each with
    class folders, has a split of its own. Without validation images, a run takes some of the training images.

    A single folder in `path` that contains class folders, as zip files have, takes the place of `path`.

    Names of classes are in the Unicode form NFC, so `é` from macOS and from other systems is the same class.

    The list of 50,000 images or more is kept in a hidden folder, `.transfer_jax_index`, so that a later start
    looks at the folders only. See `file_list` for how changes are noticed.

    Args:
        path: The folder of the class folders.
        least_classes: The smallest number of classes: 2 to train on them, 1 to evaluate a model.
        task: `single_label`, or `ordinal` if the names of the folders begin with numbers, in whose order the
            classes are; `auto` is `single_label`.
        progress: Receives a line when the list of a large folder is made; None shows none.

    Returns:
        The dataset. The name of an image is its path relative to `path`.

    Raises:
        ValueError: If the folder does not exist, has too few classes, has folders of training or validation
            images without labels, or has classes with validation or test images but no training images.
            The message lists what was found.
        OSError: If a folder is not readable, or a link to a class folder leads nowhere.
    """
    if task not in ("auto", "single_label", "ordinal"):
        raise ValueError(
            f"a folder of classes has one label for each image, and the task is {task}; list the images and "
            "their targets in a table, csv:FILE"
        )
    source = ListSource(_existing(path), {"source": "folder", "least": least_classes, "task": task})
    if (kept := source.opened()) is not None:
        return kept
    root = Folder(os.fspath(source.folder))
    found = read_folder(root, least_classes=least_classes, task=task)
    kind = make_task("single_label" if task == "auto" else task, found.class_names)
    dataset = from_files(found.files, found.names, found.labels, found.class_names, found.stamps, kind)
    dataset = dataclasses.replace(
        dataset, held_out=found.mask("validation"), test=found.mask("test"), notes=found.notes
    )
    return source.kept(dataset, found.files, found.stamps, root.listed, progress)


def read_folder(root: Folder, *, least_classes: int = 2, task: str = "auto") -> FolderImages:
    """Returns the images in a folder of class folders, as `from_folder` describes them.

    Args:
        root: The folder, on a disk or in object storage.
        least_classes: As for `from_folder`.
        task: As for `from_folder`; `ordinal` sorts the classes by their numbers.

    Raises:
        ValueError: As `from_folder`.
        OSError: As `from_folder`.
    """
    top, notes = _unwrapped(root)
    split = find_split(top)
    if split.training is not top:
        notes += images_without_class(top)
    training, more = _unwrapped(split.training, part=True)
    left_out: LeftOut = Counter()
    for folder in {id(each): each for each in (root, top, split.training, training)}.values():
        left_out.update(folder.left_out)
    notes += [*split.notes, *more]
    classes = read_class_folders(training, notes)
    if len(classes) < least_classes:
        raise ValueError("; ".join((_too_few_classes(training, classes), *notes)))
    parts = {"training": classes}
    for part, folder in (("validation", split.validation), ("test", split.test)):
        if folder is None:
            continue
        if not {class_name(each.name) for each in folder.folders} & {*classes}:
            folder, more = _unwrapped(folder, part=True)
            notes += more
        if part == "test" and not {class_name(each.name) for each in folder.folders} & {*classes}:
            notes.append(f"folders not read: {folder.name!r} (none of its folders is a class)")
            continue
        left_out.update(folder.left_out)
        parts[part] = read_class_folders(folder, notes)
        notes += _compared(root.path, classes, parts[part], part)
    class_names = tuple(sorted(classes))
    if task == "ordinal":
        class_names = tuple(class_names[place] for place in class_order(class_names))
    position = {name: label for label, name in enumerate(class_names)}
    files, stamps, labels, part_of = [], [], [], []
    for part, images_of in parts.items():
        for name, found in images_of.items():
            files += found.files
            stamps += found.stamps
            labels += [position[name]] * len(found.files)
            part_of += [part] * len(found.files)
            left_out.update(found.left_out)
    start = len(os.path.join(root.path, ""))
    names = [file[start:].replace(os.sep, "/") for file in files]
    notes = (*notes, *left_out_notes(left_out))
    return FolderImages(files, stamps, names, labels, class_names, part_of, notes)


def _existing(path: str | os.PathLike[str]) -> Path:
    """Returns the path of a folder.

    Raises:
        ValueError: If there is no such folder; the message says what to give.
    """
    if not os.fspath(path):
        raise ValueError("the path of the folder of images is empty")
    folder = Path(os.path.expanduser(path))
    if folder.is_dir():
        return folder
    if not folder.exists():
        turned = Path(str(folder).replace("\\", "/"))
        hint = f"; did you mean {str(turned)!r}?" if turned.is_dir() else ""
        raise ValueError(f"the folder {str(path)!r} does not exist{hint}")
    if folder.suffix.lower() in (".csv", ".tsv", ".txt"):
        raise ValueError(f"{str(path)!r} is a file, not a folder; for a table use csv:{path}")
    if folder.suffix.lower() in _ARCHIVES:
        raise ValueError(f"{str(path)!r} is an archive; unpack it and give the folder of its images")
    raise ValueError(f"{str(path)!r} is a file; expected a folder with one subfolder for each class")


def _unwrapped(folder: Folder, *, part: bool = False) -> tuple[Folder, list[str]]:
    """Returns the folder that a single folder wraps, as zip files do, and a sentence about it.

    Args:
        folder: A folder.
        part: True for a part of a split; others end at folders that are named like parts of a split.
    """
    inner = folder
    while not inner.image_count:
        if not part and any(part_of_split(each.name) for each in inner.folders):
            break
        with_images = [each for each in inner.folders if each.has_images()]
        if len(with_images) != 1 or not with_images[0].folders:
            break
        inner = with_images[0]
    if inner is folder:
        return folder, []
    below = os.path.relpath(inner.path, folder.path)
    return inner, [f"class folders read from {below!r}, the only folder with images in {folder.name!r}"]


def _compared(root: str, training: Iterable[str], found: Iterable[str], part: str) -> list[str]:
    """Returns a sentence about training classes without validation images, or without test images.

    Raises:
        ValueError: If classes have such images but no training images.
    """
    by_fold = {_fold(name): name for name in training}
    unknown = sorted({*found} - {*training})
    for name in unknown:
        if (similar := by_fold.get(_fold(name))) is not None:
            raise ValueError(
                f"{root!r} has the class {similar!r} in training and {name!r} in {part}; rename one of "
                "the folders if they are the same class"
            )
    if unknown:
        raise ValueError(
            f"{root!r} has classes with {part} images but no training images: {abridged(unknown)}; "
            f"add training images of them, or move their {part} images away"
        )
    missing = sorted({*training} - {*found})
    return [f"classes without {part} images: {abridged(missing)}"] if missing else []


def _fold(name: str) -> str:
    """Returns a name without differences of case, spaces and punctuation."""
    letters = unicodedata.normalize("NFKC", name).casefold()
    return "".join(letter for letter in letters if letter.isalnum()) or letters


def _too_few_classes(folder: Folder, classes: Iterable[str]) -> str:
    for name in classes:
        return f"{folder.path!r} has only the class folder {name!r}; at least two classes are needed"
    found = folder.names()
    return (
        f"{folder.path!r} has no class folders with images: expected one subfolder a class, "
        f"found {abridged(found)}{table_hint(folder)}"
    )
