"""Objects in object storage as folders, as `folder_tree` reads them from a disk."""

import functools
from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

from transfer_jax.data.file_endings import ending, has_image_ending
from transfer_jax.data.folder_tree import RUN_FILES, STUDY_FILES, SYSTEM_FILES, SYSTEM_FOLDERS, Folder
from transfer_jax.data.left_out import LeftOut
from transfer_jax.storage.object_listing import StoredObject


class _Status(NamedTuple):
    st_size: int
    st_mtime_ns: int


class _Entry:
    """An object, with what `Folder` uses of an `os.DirEntry`: the time is the place in the listing."""

    __slots__ = ("name", "path", "place", "size")

    def __init__(self, name: str, path: str, size: int, place: int) -> None:
        self.name, self.path, self.size, self.place = name, path, size, place

    def stat(self) -> _Status:
        return _Status(self.size, self.place)


class ObjectFolder(Folder):
    """A folder of listed objects; one without an ending is no image.

    Attributes:
        path: Its address.
    """

    def __init__(self, path: str, above: Folder | None = None) -> None:
        super().__init__(path, above)
        self.entries: dict[str, ObjectFolder | _Entry] = {}

    def names(self) -> list[str]:
        return sorted(self.entries)

    @functools.cached_property
    def _contents(self) -> tuple[list[Any], LeftOut, list[str]]:
        children: list[Any] = []
        left_out: LeftOut = Counter()
        if self._above is not None and (
            self.entries.keys() >= RUN_FILES or self.entries.keys() >= STUDY_FILES
        ):
            left_out["run", self.name] += 1
            return children, left_out, []
        for name in self.names():
            child, lower = self.entries[name], name.lower()
            if isinstance(child, ObjectFolder):
                if lower.startswith(".") or lower in SYSTEM_FOLDERS:
                    left_out["folder", name] += 1
                else:
                    children.append(child)
            elif lower.startswith(".") or lower.endswith(SYSTEM_FILES):
                left_out["hidden", ""] += 1
            elif has_image_ending(name):
                children.append(child)
            else:
                left_out["ending", ending(name)] += 1
        return children, left_out, []


def object_tree(address: str, objects: Iterable[StoredObject], hidden: str) -> ObjectFolder:
    """Returns the objects below an address as folders. The time in a stamp is the place in the listing.

    Args:
        address: The address of the outermost folder.
        objects: All objects below it.
        hidden: Name of a folder that is left out without a note.
    """
    root = ObjectFolder(address)
    folders: dict[str, ObjectFolder] = {"": root}

    def folder_of(path: str) -> ObjectFolder:
        found = folders.get(path)
        if found is None:
            outer, _, name = path.rpartition("/")
            above = folder_of(outer)
            found = folders[path] = ObjectFolder(f"{address}/{path}", above)
            above.entries[name] = found
        return found

    for place, each in enumerate(objects):
        outer, _, name = each.place.removeprefix(f"{address}/").rpartition("/")
        if hidden not in outer.split("/"):
            folder_of(outer).entries[name] = _Entry(name, each.place, each.size, place)
    return root
