"""Image files that are found by paths as people and programs write them in tables."""

import itertools
import os
import re
import stat
import unicodedata
import urllib.parse
from collections.abc import Sequence
from typing import NamedTuple

from transfer_jax.counted import counted
from transfer_jax.data.file_endings import has_image_ending

_ATTEMPTS = 20
"""Number of paths that are searched for in all subfolders."""
_FOLDERS = 1000
"""Largest number of folders that are searched."""


class FoundFile(NamedTuple):
    """A file that a path leads to.

    Attributes:
        path: Its path, absolute or relative to the working directory.
        name: The path as it is written, or the corrected one, relative to the table's folder if possible.
        status: The result of `os.stat`.
    """

    path: str
    name: str
    status: os.stat_result


class ImagePaths:
    """Finds image files by written paths, and counts those that are not exactly as they are written.

    A path is relative to a folder. If there is no such file, these differences are accepted: backslashes,
    `file://`, upper and lower case and Unicode normal forms if they lead to one file, a missing ending if one
    image has the name, one subfolder that contains all images (such as `images`), and the same leading
    folders of all paths, which are those of another machine.

    Attributes:
        changes: For each kind of difference, the number of paths and the first one, written and found.
        listed: The time of modification of each folder that was listed, in nanoseconds.
    """

    def __init__(self, base: str | os.PathLike[str]) -> None:
        self.changes: dict[str, tuple[int, str, str]] = {}
        self.listed: dict[str, int] = {}
        self._base = os.fspath(base)
        self._start = os.path.join(self._base, "")
        self._entered: dict[tuple[str, ...], tuple[str, list[str]] | None] = {}
        self._listings: dict[str, _Listing] = {}
        self._prefix: list[str] | None = None
        self._subfolder: str | None = None
        self._attempts = 0

    def reset(self) -> None:
        """Forgets which differences were found; the names in folders are kept."""
        self.changes = {}
        self._prefix = self._subfolder = None
        self._attempts = 0

    def find(self, written: str) -> FoundFile | None:
        """Returns the file of a written path, or None if there is none."""
        path = written if written.startswith(os.sep) else self._start + written
        try:
            status = os.stat(path)
        except (OSError, ValueError):
            status = None
        if status is not None and stat.S_ISREG(status.st_mode):
            return FoundFile(path, written, status)
        if not written or (re.match(r"[a-z][a-z0-9+]+://", written) and not written.startswith("file:")):
            return None
        text = urllib.parse.unquote(written.removeprefix("file://")) if written[:7] == "file://" else written
        kinds = ["file"] if text is not written else []
        kinds += ["backslash"] if "\\" in text else []
        found = self._search([part for part in re.split(r"[\\/]+", text) if part not in ("", ".")], text)
        if found is None:
            return None
        path, others = found
        try:
            status = os.stat(path)
        except OSError:
            return None
        if not stat.S_ISREG(status.st_mode):
            return None
        name = path.removeprefix(self._start).replace(os.sep, "/")
        for kind in (*kinds, *others):
            count, *_ = self.changes.setdefault(kind, (0, written, name))
            self.changes[kind] = (count + 1, *self.changes[kind][1:])
        return FoundFile(path, name, status)

    def notes(self) -> tuple[str, ...]:
        """Returns a sentence for each kind of difference between written paths and files."""
        prefix = "/".join(self._prefix or []) or "/"
        texts = {
            "file": "begin with file://",
            "backslash": "have backslashes, which are read as slashes",
            "spelling": "differ from the names of files in case or Unicode normal form",
            "ending": "have no ending; the only image of that name is read",
            "subfolder": f"are found in the subfolder {os.path.basename(self._subfolder or '')!r}",
            "prefix": f"begin with {prefix!r}, which is not here; the rest is found in the table's folder",
        }
        return tuple(
            f"{counted(count, 'path')} in the table {texts[kind]}, such as {written!r} ({name!r})"
            for kind, (count, written, name) in self.changes.items()
        )

    def explanation(self, written: str) -> str:
        """Returns advice for a path that leads to no file."""
        if "://" in written:
            return "paths are URLs: download the images first"
        parts = [part for part in re.split(r"[\\/]+", written) if part not in ("", ".")]
        if not parts:
            return "paths are relative to the table's folder"
        if os.path.isdir(os.path.join(self._base, written)):
            return f"{written!r} is a folder, not an image"
        for folder in (os.curdir, os.path.dirname(os.path.abspath(self._base))):
            if os.path.isfile(os.path.join(folder, *parts)) and not os.path.isabs(written):
                return f"it exists in {os.path.abspath(folder)!r}: write paths relative to the table's folder"
        if inside := self._subfolders_with(parts):
            shown = " and ".join(repr(os.path.basename(folder)) for folder in inside[:3])
            return f"files of that name are in {shown}: write the folder into the paths"
        above = os.path.dirname(os.path.abspath(self._base))
        if beside := self._subfolders_with(parts, above):
            name = os.path.basename(beside[0])
            return f"files of that name are in {beside[0]!r}: write '../{name}/' before the paths"
        folder = self._enter(self._base, parts[:-1])
        alike = self._listing(folder[0]).stems.get(_stem(parts[-1]), []) if folder else []
        if alike:
            return (
                f"its folder contains {' and '.join(map(repr, alike[:3]))}: correct the ending in the table"
            )
        return "paths are relative to the table's folder"

    def _search(self, parts: list[str], text: str) -> tuple[str, list[str]] | None:
        """Returns the path for the parts of a written path, and the kinds of differences."""
        if not parts:
            return None
        absolute = re.match(r"[\\/]|[A-Za-z]:", text) is not None
        if absolute and text[0] in "/\\" and (found := self._walk(os.sep, parts)):
            return found
        if not absolute and (found := self._walk(self._base, parts)):
            return found
        if not absolute and self._subfolder is None and self._attempts < _ATTEMPTS:
            self._attempts += 1
            inside = self._subfolders_with(parts)
            self._subfolder = inside[0] if len(inside) == 1 else None
        if not absolute and self._subfolder and (found := self._walk(self._subfolder, parts)):
            return found[0], [*found[1], "subfolder"]
        for count in range(0 if absolute else 1, len(parts)):
            if self._prefix not in (None, parts[:count]):
                continue
            if found := self._walk(self._base, parts[count:]):
                self._prefix = parts[:count]
                return found[0], [*found[1], "prefix"]
        return None

    def _subfolders_with(self, parts: list[str], folder: str | None = None) -> list[str]:
        """Returns the folders in a folder, by default the table's, that contain a file at a relative path."""
        folder = folder or self._base
        names = self._listing(folder).exact
        paths = (os.path.join(folder, name) for name in sorted(names) if not name.startswith("."))
        folders = itertools.islice((path for path in paths if os.path.isdir(path)), _FOLDERS)
        return [path for path in folders if self._walk(path, parts)]

    def _walk(self, start: str, parts: list[str]) -> tuple[str, list[str]] | None:
        """Returns the path below a folder, and the kinds of differences; None if there is none."""
        if (entered := self._enter(start, parts[:-1])) is None:
            return None
        folder, kinds = entered
        listing, part = self._listing(folder), parts[-1]
        name = listing.name_of(part)
        if name is None and not has_image_ending(part):
            images = listing.stems.get(unicodedata.normalize("NFC", part), [])
            name, kinds = (images[0], [*kinds, "ending"]) if len(images) == 1 else (None, kinds)
        elif name is not None and name != part and "spelling" not in kinds:
            kinds = [*kinds, "spelling"]
        return (os.path.join(folder, name), kinds) if name is not None else None

    def _enter(self, start: str, parts: Sequence[str]) -> tuple[str, list[str]] | None:
        """Returns the path of a folder below a folder, as `_walk`."""
        key = (start, *parts)
        if key not in self._entered:
            folder, kinds = start, []
            for part in parts:
                name = part if part == os.pardir else self._listing(folder).name_of(part)
                kinds = kinds if name == part else ["spelling"]
                folder = None if folder is None or name is None else os.path.join(folder, name)
            self._entered[key] = None if folder is None else (folder, kinds)
        return self._entered[key]

    def _listing(self, folder: str | None) -> "_Listing":
        if folder is None:
            return _Listing(())
        if folder not in self._listings:
            self._listings[folder] = _Listing(self._names_in(folder))
        return self._listings[folder]

    def _names_in(self, folder: str) -> Sequence[str]:
        """Returns the names of everything in a folder; none if there is no such folder."""
        try:
            self.listed[folder] = os.stat(folder).st_mtime_ns
            return os.listdir(folder)
        except OSError:
            return []


class _Listing:
    """The names in a folder, by case-folded name and by name without extension."""

    def __init__(self, names: Sequence[str]) -> None:
        self.exact = frozenset(names)
        self.folded: dict[str, list[str]] = {}
        self.stems: dict[str, list[str]] = {}
        for name in sorted(names):
            self.folded.setdefault(unicodedata.normalize("NFC", name).casefold(), []).append(name)
            if has_image_ending(name) and not name.startswith("."):
                self.stems.setdefault(_stem(name), []).append(name)

    def name_of(self, part: str) -> str | None:
        """Returns the only name that is equal apart from case and normal form; an equal name first."""
        if part in self.exact:
            return part
        normal = unicodedata.normalize("NFC", part)
        alike = self.folded.get(normal.casefold(), [])
        same = [name for name in alike if unicodedata.normalize("NFC", name) == normal]
        return same[0] if len(same) == 1 else alike[0] if len(alike) == 1 else None


def _stem(name: str) -> str:
    return unicodedata.normalize("NFC", os.path.splitext(name)[0])
