"""A folder of image files, and the folders in it, without what systems leave in folders."""

import dataclasses
import functools
import os
import stat
from collections import Counter
from collections.abc import Iterator

from transfer_jax.data.file_endings import ending, has_image_content, has_image_ending
from transfer_jax.data.index import INDEX_FOLDER
from transfer_jax.data.left_out import LeftOut
from transfer_jax.storage import workdir_files

SYSTEM_FOLDERS = frozenset(
    (
        *("__macosx", "network trash folder", "temporary items", "__pycache__"),
        *("$recycle.bin", "recycler", "recycled", "system volume information", "lost+found", "lost.dir"),
        *("@eadir", "@tmp", "@sharebin", "@recycle", "@recently-snapshot"),
        *("#recycle", "#snapshot", "~snapshot"),
    )
)
"""Names of folders that systems create, in lower case; those with a dot in front are hidden anyway."""
SYSTEM_FILES = ("thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r", ":zone.identifier")
"""Ends of the names of files that systems create, in lower case."""
RUN_FILES = {workdir_files.CONFIG, workdir_files.METRICS}
"""Files that are in the folder of each run."""
STUDY_FILES = {workdir_files.STUDY, workdir_files.TRIALS}
"""Files that are in the folder of each study."""
UNKNOWN = (-1, 0)
"""The stamp of a file that cannot be looked at."""


@dataclasses.dataclass(frozen=True)
class FoundImages:
    """Image files, and what was left out on the way.

    Attributes:
        files: The paths, sorted within each folder.
        stamps: Size in bytes and time of modification in nanoseconds of each file; `UNKNOWN` for a link whose
            file is missing.
        left_out: Numbers of files and folders that are not read.
    """

    files: list[str] = dataclasses.field(default_factory=list)
    stamps: list[tuple[int, int]] = dataclasses.field(default_factory=list)
    left_out: LeftOut = dataclasses.field(default_factory=Counter)


class Folder:
    """A folder, read from disk when its contents are needed, and once.

    Hidden files and folders, those that systems create, and the folders of runs are left out. Links are
    followed, except to a folder that contains them.

    Attributes:
        path: Its path.
        name: Its name.
        listed: The time of modification of each folder of the tree that was read, in nanoseconds.
    """

    def __init__(self, path: str, above: "Folder | None" = None, *, is_link: bool = False) -> None:
        self.path = path
        self.name = os.path.basename(path)
        self.listed: dict[str, int] = {} if above is None else above.listed
        self._above = above
        self._is_link = is_link

    @property
    def folders(self) -> list["Folder"]:
        """The folders directly in it, sorted by name."""
        return [child for child in self._contents[0] if isinstance(child, Folder)]

    @property
    def image_count(self) -> int:
        """Number of images directly in it."""
        return sum(not isinstance(child, Folder) for child in self._contents[0])

    @property
    def dead_links(self) -> list[str]:
        """Names of links directly in it, without an ending, whose target does not exist."""
        return self._contents[2]

    @property
    def left_out(self) -> LeftOut:
        """Numbers of files and folders directly in it that are not read."""
        return self._contents[1]

    def names(self) -> list[str]:
        """Returns the names of everything directly in it, sorted."""
        return sorted(os.listdir(self.path))

    def has_images(self) -> bool:
        """Returns True if there are images in it, at any depth."""
        return next(self._walk(FoundImages(), set()), None) is not None

    def images(self) -> FoundImages:
        """Returns the images at any depth, in the order of their paths."""
        found = FoundImages()
        for entry in self._walk(found, set()):
            found.files.append(entry.path)
            found.stamps.append(_stamp(entry))
        return found

    def _walk(self, found: FoundImages, linked: set[tuple[int, int]]) -> Iterator[os.DirEntry[str]]:
        children, left_out, _ = self._contents
        found.left_out.update(left_out)
        for child in children:
            if not isinstance(child, Folder):
                yield child
                continue
            if child._is_link:
                if child._identity in linked:
                    found.left_out["link", child.name] += 1
                    continue
                linked.add(child._identity)
            yield from child._walk(found, linked)

    @functools.cached_property
    def _identity(self) -> tuple[int, int]:
        status = os.stat(self.path)
        return status.st_dev, status.st_ino

    def _contains(self, identity: tuple[int, int]) -> bool:
        """Returns True for the identity of this folder or of one above it."""
        return self._identity == identity or (self._above is not None and self._above._contains(identity))

    @functools.cached_property
    def _contents(self) -> tuple[list["Folder | os.DirEntry[str]"], LeftOut, list[str]]:
        """Folders and images in the order of their names, numbers of other entries, and dead links."""
        children: list[Folder | os.DirEntry[str]] = []
        left_out, dead = Counter(), []
        try:
            self.listed[self.path] = os.stat(self.path).st_mtime_ns
            with os.scandir(self.path) as entries:
                ordered = sorted(entries, key=lambda entry: entry.name)
        except PermissionError:
            raise PermissionError(
                f"the folder {self.path!r} is not readable; change its permissions or move it away"
            ) from None
        names = {entry.name for entry in ordered}
        if self._above is not None and (names >= RUN_FILES or names >= STUDY_FILES):
            left_out["run", self.name] += 1
            return children, left_out, dead
        for entry in ordered:
            name, lower = entry.name, entry.name.lower()
            if name == INDEX_FOLDER:
                continue
            if _is_folder(entry):
                child = Folder(entry.path, self, is_link=entry.is_symlink())
                if lower.startswith(".") or lower in SYSTEM_FOLDERS:
                    left_out["folder", name] += 1
                elif child._is_link and self._contains(child._identity):
                    left_out["link", name] += 1
                else:
                    children.append(child)
            elif lower.startswith(".") or lower.endswith(SYSTEM_FILES):
                left_out["hidden", ""] += 1
            elif _is_special(entry):
                left_out["special", ""] += 1
            elif has_image_ending(name) or (not ending(name) and has_image_content(entry.path)):
                children.append(entry)
            else:
                left_out["ending", ending(name)] += 1
                if not ending(name) and entry.is_symlink() and not os.path.exists(entry.path):
                    dead.append(name)
        return children, left_out, dead


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # A link to itself.
        return False


def _is_special(entry: os.DirEntry[str]) -> bool:
    """Returns True for a pipe, a socket or a device, which may block a reader, and for a link to it."""
    try:
        if entry.is_file():
            return False
        mode = entry.stat().st_mode
    except OSError:  # A link whose file is missing.
        return False
    return not stat.S_ISREG(mode)


def _stamp(entry: os.DirEntry[str]) -> tuple[int, int]:
    try:
        status = entry.stat()
    except OSError:
        return UNKNOWN
    return status.st_size, status.st_mtime_ns
