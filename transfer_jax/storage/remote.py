"""Folders in object storage (`gs://…`, `s3://…`), mirrored by local copies.

All code works on local paths. `local_path` returns the local copy of an address. `pull` downloads new files
from the address into the copy and deletes local files that are deleted there; `push` does the same in the
other direction. Both do nothing for paths that are not copies. Objects are complete or missing, and `push`
uploads files that declare others complete last.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import fsspec

from transfer_jax.distributed import processes
from transfer_jax.storage import lock_owner, workdir_files
from transfer_jax.storage.atomic_write import write_text
from transfer_jax.storage.file_lock import InUseError, file_lock, is_locked
from transfer_jax.user_cache import user_cache

CACHE = "TRANSFER_JAX_MIRRORS"
"""The environment variable of the folder of the copies; the default is `~/.cache/transfer_jax/mirrors`."""
_INDEX, _LOCK = ".mirror.json", ".mirror.lock"
_REMOTE = re.compile(r"^(gs|s3):/+(.+)$")
DIRECT = "orbax"
"""The name of folders that Orbax writes and reads in object storage itself; they are not mirrored."""
_WRITTEN_LAST = ("manifest.json", "records")
"""Names of files and folders that declare others complete."""


def is_remote(place: str | os.PathLike[str]) -> bool:
    """Returns whether a path or address is in object storage, also if `pathlib` shortened `://` to `:/`."""
    return _REMOTE.match(os.fspath(place)) is not None


def protocol_and_path(place: str | os.PathLike[str]) -> tuple[str, str]:
    """Returns the protocol of an address, such as `s3`, and the path `BUCKET/NAME` there.

    Raises:
        ValueError: If it is no address in object storage.
    """
    found = _REMOTE.match(os.fspath(place))
    if found is None:
        raise ValueError(f"{os.fspath(place)!r} is no address in object storage, such as gs://BUCKET/FOLDER")
    return found[1], found[2].rstrip("/")


def local_path(place: str | os.PathLike[str], *, shared: bool = False) -> Path:
    """Returns the local copy of an address in object storage, or a local path with `~/` written out.

    Args:
        place: A local path, or an address.
        shared: Whether all processes of a machine use the same copy, which none of them modifies.

    Raises:
        ImportError: If the package for this storage is not installed.
    """
    found = _REMOTE.match(os.fspath(place))
    if found is None:
        text = os.fspath(place)  # A shell leaves `~` as it is in `--workdir=~/run`.
        return Path(text).expanduser() if text.startswith(("~/", "~\\")) else Path(place)
    kind, path = found[1], found[2].rstrip("/")
    address = f"{kind}://{path}"
    process = "" if shared else processes.index()
    own = hashlib.sha256(f"{address} {process}".encode()).hexdigest()[:20]
    root = Path(os.environ.get(CACHE) or user_cache("mirrors")).expanduser() / own
    if root not in _mirrors:
        try:
            system = fsspec.filesystem(kind)
        except ImportError as error:
            raise ImportError(f"{address} needs {error}: pip install 'transfer_jax[remote]'") from None
        root.mkdir(parents=True, exist_ok=True)
        _mirrors[root] = _Mirror(root, path, system)
    return root


def display_path(path: Path) -> str:
    """Returns the name of a path for messages: for a copy, its address."""
    found = _find_mirror(path)
    return str(path) if found is None else found.address(path)


def pull(path: Path, *, skip: Iterable[str] = (), only: str | None = None) -> None:
    """Downloads new and changed files into the copy, and deletes files that are deleted in object storage.

    Args:
        path: A local file or folder. Nothing happens if it is not in a copy.
        skip: Names of folders directly below `path` to leave out.
        only: The name of the files to download; None for all.
    """
    if (found := _find_mirror(path)) is not None:
        found.pull(path, frozenset(skip), only)


def push(path: Path, *, skip: Iterable[str] = ()) -> None:
    """Uploads new and changed files of the copy, and deletes objects whose files are deleted; see `pull`."""
    if (found := _find_mirror(path)) is not None:
        found.push(path, frozenset(skip))


def remove(path: Path) -> None:
    """Deletes a folder, and in object storage too; files that declare others complete are deleted first."""
    if (found := _find_mirror(path)) is not None:
        found.remove(path)
    shutil.rmtree(path)


@contextlib.contextmanager
def claimed(file: Path) -> Iterator[bytes | None]:
    """Uploads a file that names the owner of a copy, and deletes it from object storage at the end.

    Another machine takes over by replacing the object. `push` then raises `InUseError`, so that the earlier
    owner changes nothing more.

    Args:
        file: The record of the owner, directly in a copy.

    Yields:
        The record that it replaces; None if there was none.
    """
    found = _find_mirror(file)
    if found is None:
        raise ValueError(f"{file} is not in a copy of object storage")
    earlier = found.content(file)
    found.push(file, frozenset())
    _claims[found.root] = file
    own = file.read_bytes()
    try:
        yield earlier
    finally:
        del _claims[found.root]
        if found.content(file) == own:
            file.unlink(missing_ok=True)
            found.push(file, frozenset())


def is_mirrored(path: Path) -> bool:
    """Returns whether a path is in the local copy of an address."""
    return _find_mirror(path) is not None


def bucket_folder(path: Path) -> tuple[Any, str] | None:
    """Returns the fsspec file system and the path there of a path in a copy; None for other paths."""
    found = _find_mirror(path)
    return None if found is None else (found.system, found.address_path(path))


_mirrors: dict[Path, "_Mirror"] = {}
_claims: dict[Path, Path] = {}
"""The files of `claimed`, by the folder of their copy."""


def _find_mirror(path: Path) -> "_Mirror | None":
    return next((_mirrors[root] for root in (path, *path.parents) if root in _mirrors), None)


@dataclasses.dataclass(frozen=True)
class _Mirror:
    """A local copy of a folder in object storage.

    Attributes:
        root: The local folder. Its index has the state of each file and of its object at the last transfer.
        path: The path in object storage, without the protocol.
        system: The fsspec file system.
    """

    root: Path
    path: str
    system: Any

    def address(self, path: Path) -> str:
        """Returns the address of a path in the copy."""
        return self.system.unstrip_protocol(self.address_path(path))

    def address_path(self, path: Path) -> str:
        """Returns the address of a path in the copy without the protocol."""
        return f"{self.path}/{self._name(path)}".rstrip("/")

    def content(self, file: Path) -> bytes | None:
        """Returns the content of an object; None if it is missing."""
        self.system.invalidate_cache()
        try:
            return self.system.cat_file(f"{self.path}/{self._name(file)}")
        except FileNotFoundError:
            return None

    def pull(self, path: Path, skip: frozenset[str], only: str | None) -> None:
        if is_locked(self.root / workdir_files.LOCK):
            return  # The copy belongs to a training on this machine, and is newer than the objects.
        with file_lock(self.root / _LOCK):
            self._pull(path, skip, only)

    def _pull(self, path: Path, skip: frozenset[str], only: str | None) -> None:
        index, remote = self._index(), self._remote_tags(path)

        def is_selected(name: str) -> bool:
            file = self.root / name
            return (
                DIRECT not in file.parts and not _is_skipped(file, path, skip) and only in (None, file.name)
            )

        for name in [name for name in self._below(path, index) if is_selected(name) and name not in remote]:
            if index.pop(name)["here"] == _state(self.root / name):
                (self.root / name).unlink()
        for name, tag in remote.items():
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
        self._check_claim()
        with file_lock(self.root / _LOCK):
            self._push(path, skip)

    def _check_claim(self) -> None:
        """Raises `InUseError` if this process has claimed the copy, and another one has taken it over."""
        file = _claims.get(self.root)
        if file is not None and (owner := self.content(file)) != file.read_bytes():
            raise InUseError(
                f"another training has taken over {self.address(self.root)}: {lock_owner.describe(owner)}; "
                "this one ends, and its work since its last checkpoint is lost"
            )

    def _push(self, path: Path, skip: frozenset[str]) -> None:
        index = self._index()
        files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
        names = {self._name(file): file for file in files if not file.name.startswith(".")}
        names = {name: file for name, file in names.items() if not _is_skipped(file, path, skip)}
        deleted = [
            name
            for name in self._below(path, index)
            if name not in names and not _is_skipped(self.root / name, path, skip)
        ]
        for name in sorted(deleted, key=_order, reverse=True):  # Files that declare others complete go first.
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
        with file_lock(self.root / _LOCK):
            remote = self._remote_tags(path)
            for name in sorted(remote, key=_order, reverse=True):
                self.system.rm_file(f"{self.path}/{name}")
            self._write({name: known for name, known in self._index().items() if name not in remote})

    def _below(self, path: Path, index: dict[str, Any]) -> list[str]:
        """Returns the names in the index of a file, or of all files in a folder."""
        own = self._name(path)
        return [name for name in index if own in ("", name) or name.startswith(f"{own}/")]

    def _remote_tags(self, path: Path) -> dict[str, Any]:
        self.system.invalidate_cache()
        place = f"{self.path}/{self._name(path)}".rstrip("/")
        found = self.system.find(place, detail=True)
        return {name.removeprefix(f"{self.path}/"): self._tag(info) for name, info in found.items()}

    def _tag(self, info: dict[str, Any]) -> list[Any]:
        """Returns a tag that changes with the content of an object."""
        return [info.get("size"), str(info.get("ETag") or info.get("etag") or info.get("mtime"))]

    def _name(self, path: Path) -> str:
        return "" if path == self.root else path.relative_to(self.root).as_posix()

    def _index(self) -> dict[str, Any]:
        file = self.root / _INDEX
        try:
            return json.loads(file.read_text(encoding="utf-8"))
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
