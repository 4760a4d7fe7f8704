"""The class folders in a folder, with their images."""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

from transfer_jax.data.file_endings import UNREADABLE
from transfer_jax.data.folder_tree import Folder, FoundImages
from transfer_jax.data.image_files import abridged
from transfer_jax.data.left_out import LeftOut, left_out_notes
from transfer_jax.data.split_folders import part_of_split

_NO_CLASSES = re.compile(
    r"(?:jpe?g|png|rgb)?[ _-]*(?:images?|imgs?|pictures?|photos?|inputs?|outputs?|targets?"
    r"|masks?|labels?|annotations?|gt|ground[ _-]?truths?|segmentation(?:class|object|s)?|bbox(?:es)?|depth)",
    re.IGNORECASE,
)
"""Names of the folders of a dataset with an annotation for each image, such as a mask."""


def class_name(folder_name: str) -> str:
    """Returns the name of a class: in Unicode form NFC, with escapes for bytes that are not UTF-8."""
    escapes = "surrogatepass" if os.name == "nt" else "surrogateescape"
    readable = folder_name.encode("utf-8", escapes).decode("utf-8", "backslashreplace")
    return unicodedata.normalize("NFC", readable)


def read_class_folders(part: Folder, notes: list[str]) -> dict[str, FoundImages]:
    """Returns the images of each class, in the order of the folders.

    Args:
        part: The folder of the class folders.
        notes: Sentences about what is unusual or left out are added to it.

    Raises:
        ValueError: If the images of a class folder have formats that are not read, or are split in it.
        FileNotFoundError: If a link to a class folder leads nowhere.
    """
    if part.dead_links:
        link = os.path.join(part.path, part.dead_links[0])
        raise FileNotFoundError(
            f"the link {link!r} leads to {os.readlink(link)!r}, which does not exist; repair or delete it"
        )
    notes += images_without_class(part)
    classes: dict[str, FoundImages] = {}
    folders: dict[str, list[Folder]] = {}
    empty: list[str] = []
    in_empty: LeftOut = Counter()
    for folder in part.folders:
        found = folder.images()
        if not found.files:
            _check_unreadable(folder, found)
            empty.append(folder.name)
            in_empty.update(found.left_out)
            continue
        name = class_name(folder.name)
        folders.setdefault(name, []).append(folder)
        if name in classes:
            _extend(classes[name], found)
        else:
            classes[name] = found
    if empty:
        contents = "; ".join(left_out_notes(in_empty))
        notes.append(f"folders without images: {abridged(empty)}" + (f" ({contents})" if contents else ""))
    for same in folders.values():
        if len(same) > 1:
            forms = ", ".join(ascii(each.name) for each in same)
            notes.append(f"folders read as one class, as their names have the same letters: {forms}")
    if len(classes) > 1:
        if all(map(_NO_CLASSES.fullmatch, classes)):
            inner = next((each[0].path for each in folders.values() if len(each[0].folders) > 1), None)
            hint = f" (if they are in {inner!r}: --images {inner})" if inner else ""
            raise ValueError(
                f"{part.path!r} has images and their annotations, {abridged([*classes])}, but no class "
                f"folders{hint}: expected one subfolder a class. If they are classes, rename them"
            )
        notes += _nested([same[0] for same in folders.values()])
    return classes


def images_without_class(folder: Folder) -> list[str]:
    """Returns a sentence about the images that are directly in the folder of the class folders."""
    if not (count := folder.image_count):
        return []
    return [f"images without a class folder left out: {count:,} directly in {folder.name!r}"]


def _extend(found: FoundImages, more: FoundImages) -> None:
    found.files.extend(more.files)
    found.stamps.extend(more.stamps)
    found.left_out.update(more.left_out)


def _check_unreadable(folder: Folder, found: FoundImages) -> None:
    """Raises `ValueError` if a folder has images of formats that are not read, and no others."""
    endings = {ending for reason, ending in found.left_out if reason == "ending"}
    if endings & UNREADABLE:
        notes = "; ".join(left_out_notes(found.left_out))
        raise ValueError(f"the class folder {folder.path!r} has no images that can be read: {notes}")


def _nested(folders: Sequence[Folder]) -> list[str]:
    """Returns a sentence about class folders that have only folders in them.

    Raises:
        ValueError: If these are the parts of a split in all class folders, or the other classes again.
    """
    nested = [each for each in folders if not each.image_count]
    if not nested:
        return []
    names = {each.name for each in folders}
    for folder in nested:
        again = [below.name for below in folder.folders if below.name in names]
        if len(again) > 1:
            raise ValueError(
                f"{folder.path!r} has folders named like the classes beside it, {abridged(again)}: move it "
                "away if it is a copy of them, otherwise rename them"
            )
    outer, below = (abridged(names) for names in ([each.name for each in nested], _names_in(nested)))
    parts = {part_of_split(name) for name in _names_in(nested)}
    if len(nested) == len(folders) and "training" in parts and len(parts - {None}) > 1:
        raise ValueError(
            f"the class folders {outer} have the folders {below}: a split inside of class folders is not "
            "supported; move the images to train/CLASS and val/CLASS"
        )
    return [f"class folders with images in subfolders only: {outer}; their subfolders {below} are no classes"]


def _names_in(folders: Sequence[Folder]) -> list[str]:
    return sorted({below.name for folder in folders for below in folder.folders})
