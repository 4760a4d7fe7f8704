"""The folders of training, validation and test images in the folder of a dataset, found by their names."""

import dataclasses
import os
import re
from collections.abc import Sequence

from transfer_jax.data.folder_tree import Folder
from transfer_jax.data.image_files import abridged

_PREFIX = r"(?:(?:seg|images?|imgs?|data|dataset|public|private|my)[ _.-]*)?"
_SUFFIX = r"(?:[ _.-]*(?:sets?|data|dataset|images?|imgs?|folder|dir|split|mini|small|full))*[ _.-]*[ab]?\d*"
_PARTS = {
    "training": re.compile(rf"{_PREFIX}(?:train|training|trn|train[ _-]?val){_SUFFIX}"),
    "validation": re.compile(
        rf"{_PREFIX}(?:val|valid|validation|validate|dev|eval|evaluation|holdout|held[ _-]?out){_SUFFIX}"
    ),
    "test": re.compile(rf"{_PREFIX}(?:test|testing|tst){_SUFFIX}"),
}
"""Names of the folders of each part of a split, in lower case."""
_NO_CLASS = re.compile(r"(?:un-?label+ed|unsup.*|samples?|extra|submissions?|pred(?:iction)?s?)[ _.-]*\w*")
"""Names of folders that lie beside the parts of a split and are no classes."""
_LAYOUT = "expected train/CLASS/IMAGE and val/CLASS/IMAGE, or CLASS/IMAGE"
_RENAME = "If they are classes, rename them or list the images in a table (--images csv:FILE)"


@dataclasses.dataclass(frozen=True)
class SplitFolders:
    """The folders of class folders in the folder of a dataset.

    Attributes:
        training: The folder of the class folders of training images.
        validation: The folder of the class folders of validation images; None if there is none.
        test: The folder of the class folders of test images; None if there is none.
        notes: Sentences about folders that are not read.
    """

    training: Folder
    validation: Folder | None = None
    test: Folder | None = None
    notes: tuple[str, ...] = ()


def part_of_split(name: str) -> str | None:
    """Returns `training`, `validation` or `test` for the name of a folder of such images, otherwise None."""
    lower = name.lower()
    return next((part for part, names in _PARTS.items() if names.fullmatch(lower)), None)


def find_split(root: Folder) -> SplitFolders:
    """Returns the folders of training, validation and test images, by their names.

    Args:
        root: The folder of a dataset. It is the folder of training images if none of its folders is named
            like a part of a split.

    Raises:
        ValueError: If it is unclear which folders are parts of a split and which are classes, or if the
            parts have no class folders.
    """
    parts: dict[str, list[Folder]] = {part: [] for part in _PARTS}
    others = []
    for folder, part in zip(root.folders, _parts_of([each.name for each in root.folders]), strict=True):
        parts.get(part or "", others).append(folder)
    if not any(parts.values()):
        return SplitFolders(root)
    with_classes = {part: [*filter(_has_class_folders, folders)] for part, folders in parts.items()}
    if not with_classes["training"]:
        return _classes_named_like_parts(root, parts, others)
    training = _only(root, with_classes["training"], "training")
    aside = {
        part: _only(root, with_classes[part], part) for part in ("validation", "test") if with_classes[part]
    }
    notes = []
    if not aside and (unclear := [folder.name for folder in others if folder.has_images()]):
        raise ValueError(
            f"{root.path!r} has class folders in {training.name!r}, and images in {abridged(unclear)}: name "
            f"the folder of training images (--images {training.path}) or move the others away. {_RENAME}"
        )
    read = (training, *aside.values())
    flat = [each for folders in parts.values() for each in folders if each not in read]
    for folders, reason in ((flat, "no class folders with images"), (others, "no part of a split")):
        if folders:
            notes.append(f"folders not read: {abridged([each.name for each in folders])} ({reason})")
    return SplitFolders(training, aside.get("validation"), aside.get("test"), tuple(notes))


def _parts_of(names: Sequence[str]) -> list[str | None]:
    """Returns the part of a split that each folder is named like, also in `birds_train` and `birds_test`."""
    found = [part_of_split(name) for name in names]
    if any(found) or len(names) < 2:
        return found
    words = [re.split("[ _.-]", name) for name in names]
    for end in (0, -1):
        while all(len(each) > 1 for each in words) and len({each[end] for each in words}) == 1:
            for each in words:
                each.pop(end)
    shorter = [part_of_split(" ".join(each)) for each in words]
    return shorter if "training" in shorter and len({*shorter} - {None}) > 1 else found


def _has_class_folders(folder: Folder) -> bool:
    return any(each.has_images() for each in folder.folders)


def _classes_named_like_parts(
    root: Folder, parts: dict[str, list[Folder]], others: Sequence[Folder]
) -> SplitFolders:
    """Returns the root if `train` is one class of several, such as other vehicles; otherwise raises."""
    named = [folder for folders in parts.values() for folder in folders]
    classes = [each for each in others if each.has_images()]
    no_class = any(_NO_CLASS.fullmatch(each.name.lower()) for each in classes)
    if parts["training"] == named and len(named) == 1 and len(classes) > 1 and not no_class:
        note = f"the folder {named[0].name!r} is read as a class like {classes[0].name!r}"
        return SplitFolders(root, notes=(f"{note}; if it is no class, move it away",))
    names = abridged([folder.name for folder in named])
    if classes:
        beside = abridged([each.name for each in classes])
        raise ValueError(
            f"{root.path!r} has {names} beside {beside}: are these parts of a split, or classes? "
            f"For a split, {_LAYOUT}. {_RENAME}"
        )
    if any(map(_has_class_folders, named)):
        raise ValueError(
            f"{root.path!r} has {names}, but no class folders of training images: {_LAYOUT}. "
            f"To read {named[0].name!r} alone, use --images {named[0].path}"
        )
    raise ValueError(
        f"{root.path!r} has images without labels: there are no class folders in {names}{table_hint(root)}; "
        f"{_LAYOUT}. {_RENAME}"
    )


def _only(root: Folder, folders: Sequence[Folder], part: str) -> Folder:
    if len(folders) > 1:
        raise ValueError(
            f"{root.path!r} has several folders of {part} images, keep one of them: "
            f"{abridged([each.name for each in folders])}. {_RENAME}"
        )
    return folders[0]


def table_hint(folder: Folder) -> str:
    """Returns a part of a sentence that names a table in a folder, if there is one."""
    tables = [name for name in folder.names() if name.lower().endswith((".csv", ".tsv"))]
    if not tables:
        return ""
    return f" (if {tables[0]!r} has the labels: --images csv:{os.path.join(folder.path, tables[0])})"
