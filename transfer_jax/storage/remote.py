"""Folders in object storage (`gs://…`, `s3://…`), worked on through a copy on this machine.

All code works on local paths. `local_of` gives the one that stands for an address; `pull` brings what is new
there and removes what is deleted there, `push` the other way round. For paths that stand for nothing they do
nothing. An object is there whole or not at all, and folders are pushed so that what says of others that they
are whole comes last.
"""

import dataclasses
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import fsspec
from filelock import FileLock

from transfer_jax.distributed import processes
from transfer_jax.storage.atomic_write import write_text

CACHE = "TRANSFER_JAX_MIRRORS"
"""Variable that names the folder of the copies; `~/.cache/transfer_jax/mirrors` without it."""
_INDEX, _LOCK = ".mirror.json", ".mirror.lock"
_REMOTE = re.compile(r"^(gs|s3):/+(.+)$")
_WRITTEN_LAST = ("manifest.json", "records")
"""Files, and files in folders, that say of others that they are whole."""


def is_remote(place: str | os.PathLike[str]) -> bool:
    """Whether a place is in object storage; `pathlib` has made one slash of two, which does not matter."""
    return _REMOTE.match(os.fspath(place)) is not None


def local_of(place: str | os.PathLike[str], *, shared: bool = False) -> Path:
    """The local path that stands for a place: itself, or a copy.

    Args:
        place: A local path, or an address.
        shared: Whether the processes of a machine have one copy, which none of them changes.

    Raises:
        ImportError: If the package for this kind of storage is not installed.
    """
    found = _REMOTE.match(os.fspath(place))
    if found is None:
        return Path(place)
    kind, path = found[1], found[2].rstrip("/")
    address = f"{kind}://{path}"
    cache = os.environ.get(CACHE) or "~/.cache/transfer_jax/mirrors"
    whose = "" if shared else processes.index()
    own = hashlib.sha256(f"{address} {whose}".encode()).hexdigest()[:20]
    root = Path(cache).expanduser() / own
    if root not in _mirrors:
        try:
            system = fsspec.filesystem(kind)
        except ImportError as error:
            raise ImportError(f"{address} needs {error}: pip install 'transfer_jax[remote]'") from None
        root.mkdir(parents=True, exist_ok=True)
        _mirrors[root] = _Mirror(root, path, system)
    return root


def display_path(path: Path) -> str:
    """What to call a path in messages: the address that it stands for."""
    found = _find_mirror(path)
    return str(path) if found is None else found.address(path)


def pull(path: Path, *, skip: Iterable[str] = (), only: str | None = None) -> None:
    """Brings what is there and not here, or not as it is there.

    Args:
        path: A file or folder, here.
        skip: Names of folders directly below it to leave out.
        only: Name of the files to bring; all without it.
    """
    if (found := _find_mirror(path)) is not None:
        found.pull(path, frozenset(skip), only)


def push(path: Path, *, skip: Iterable[str] = ()) -> None:
    """Takes there what has changed here, and removes there what is deleted here; arguments as for `pull`."""
    if (found := _find_mirror(path)) is not None:
        found.push(path, frozenset(skip))


def remove(path: Path) -> None:
    """Removes a folder here and there, first there what says that others are whole."""
    if (found := _find_mirror(path)) is not None:
        found.remove(path)
    shutil.rmtree(path)


def is_mirrored(path: Path) -> bool:
    """Whether a path stands for an address."""
    return _find_mirror(path) is not None


_mirrors: dict[Path, "_Mirror"] = {}


def _find_mirror(path: Path) -> "_Mirror | None":
    return next((_mirrors[root] for root in (path, *path.parents) if root in _mirrors), None)


@dataclasses.dataclass(frozen=True)
class _Mirror:
    """A folder here for one there.

    Attributes:
        root: The one here. Its index has of each file how it was here and there when both were alike.
        path: The one there, without the kind of storage.
        system: The storage.
    """

    root: Path
    path: str
    system: Any

    def address(self, path: Path) -> str:
        """Where a path is there."""
        return self.system.unstrip_protocol(f"{self.path}/{self._name(path)}".rstrip("/"))

    def pull(self, path: Path, skip: frozenset[str], only: str | None) -> None:
        with FileLock(self.root / _LOCK):
            self._pull(path, skip, only)

    def _pull(self, path: Path, skip: frozenset[str], only: str | None) -> None:
        index, there = self._index(), self._remote_tags(path)

        def is_selected(name: str) -> bool:
            file = self.root / name
            return not _is_skipped(file, path, skip) and only in (None, file.name)

        for name in [name for name in self._below(path, index) if is_selected(name) and name not in there]:
            if index.pop(name)["here"] == _state(self.root / name):
                (self.root / name).unlink()
        for name, tag in there.items():
            file = self.root / name
            if not is_selected(name):
                continue
            known = index.get(name)
            if known is not None and known["there"] == tag and known["here"] == _state(file):
                continue
            file.parent.mkdir(parents=True, exist_ok=True)
            part = file.with_name(f".{file.name}.part")
            self.system.get_file(f"{self.path}/{name}", str(part))
            part.replace(file)
            index[name] = {"here": _state(file), "there": tag}
        self._write(index)

    def push(self, path: Path, skip: frozenset[str]) -> None:
        index = self._index()
        here = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
        names = {self._name(file): file for file in here if not file.name.startswith(".")}
        names = {name: file for name, file in names.items() if not _is_skipped(file, path, skip)}
        deleted = [
            name
            for name in self._below(path, index)
            if name not in names and not _is_skipped(self.root / name, path, skip)
        ]
        for name in sorted(deleted, key=_order, reverse=True):  # First what says that others are whole.
            if self.system.exists(f"{self.path}/{name}"):
                self.system.rm_file(f"{self.path}/{name}")
            del index[name]
        for name in sorted(names, key=_order):
            state = _state(names[name])
            if index.get(name, {}).get("here") != state:
                self.system.put_file(str(names[name]), f"{self.path}/{name}")
                index[name] = {"here": state, "there": self._tag(self.system.info(f"{self.path}/{name}"))}
        self._write(index)

    def remove(self, path: Path) -> None:
        there = self._remote_tags(path)
        for name in sorted(there, key=_order, reverse=True):
            self.system.rm_file(f"{self.path}/{name}")
        self._write({name: known for name, known in self._index().items() if name not in there})

    def _below(self, path: Path, index: dict[str, Any]) -> list[str]:
        """The names in the index of a file, or of all in a folder."""
        own = self._name(path)
        return [name for name in index if own in ("", name) or name.startswith(f"{own}/")]

    def _remote_tags(self, path: Path) -> dict[str, Any]:
        self.system.invalidate_cache()
        place = f"{self.path}/{self._name(path)}".rstrip("/")
        found = self.system.find(place, detail=True)
        return {name.removeprefix(f"{self.path}/"): self._tag(info) for name, info in found.items()}

    def _tag(self, info: dict[str, Any]) -> list[Any]:
        """Changes whenever the object does."""
        return [info.get("size"), str(info.get("ETag") or info.get("etag") or info.get("mtime"))]

    def _name(self, path: Path) -> str:
        return "" if path == self.root else path.relative_to(self.root).as_posix()

    def _index(self) -> dict[str, Any]:
        file = self.root / _INDEX
        try:
            return json.loads(file.read_text())
        except (FileNotFoundError, ValueError):
            return {}

    def _write(self, index: dict[str, Any]) -> None:
        write_text(self.root / _INDEX, json.dumps(index))


def _state(file: Path) -> list[int] | None:
    if not file.is_file():
        return None
    status = file.stat()
    return [status.st_size, status.st_mtime_ns]


def _order(name: str) -> tuple[bool, str]:
    parts = name.split("/")
    return any(part in _WRITTEN_LAST for part in parts), name


def _is_skipped(file: Path, path: Path, skip: frozenset[str]) -> bool:
    return file != path and path in file.parents and file.relative_to(path).parts[0] in skip
