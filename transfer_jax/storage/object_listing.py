"""Lists of the objects in a folder in object storage, and of the files that a pattern of shards names."""

import dataclasses
import glob
import itertools
import os
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from transfer_jax.storage.byte_ranges import local_tag, storage_error
from transfer_jax.storage.foreign_files import is_foreign
from transfer_jax.storage.range_reads import connection, version_tag
from transfer_jax.storage.remote import is_remote, protocol_and_path

_THREADS = 32
"""Folders that are listed at a time."""
_SPREAD = 16
"""Number of folders from which they are listed in parallel, each with all below it."""
_DEPTH = 3
"""Largest number of levels that are listed one by one to find that many folders."""
_BRACES = re.compile(r"\{([^{}]*)\}")
_NUMBERS = re.compile(r"(\d+)\.\.(\d+)")


@dataclasses.dataclass(frozen=True, slots=True)
class StoredObject:
    """An object, or a local file.

    Attributes:
        place: Its address, or its path.
        size: Number of bytes.
        tag: Its version, as `ByteRange.tag`.
    """

    place: str
    size: int
    tag: str


def list_objects(folder: str) -> list[StoredObject]:
    """Returns all objects below a folder in object storage, sorted by address; many folders at a time.

    Args:
        folder: The address.

    Raises:
        StorageError: If the folder does not exist, or is not readable.
    """
    kind, path = protocol_and_path(folder)
    system = connection(kind)
    found, level = _levels(folder)
    try:
        with ThreadPoolExecutor(_THREADS) as pool:
            below = pool.map(lambda each: system.find(each, detail=True).values(), level)
            found += itertools.chain.from_iterable(below)
    except Exception as error:
        raise storage_error(folder, error) from error
    return _objects(kind, path, found)


def outer_folders(folder: str) -> tuple[list[StoredObject], list[str]]:
    """Returns the addresses of some folders below a folder, and the objects that are in none of them.

    They are folders of the first level with enough folders for a parallel listing: class folders, or those of
    each part of a split. There are none if all objects are in the folder itself.

    Args:
        folder: The address.

    Raises:
        StorageError: If the folder does not exist, or is not readable.
    """
    kind, path = protocol_and_path(folder)
    found, level = _levels(folder)
    return _objects(kind, path, found), sorted(f"{kind}://{each}" for each in level)


def _levels(folder: str) -> tuple[list[dict[str, Any]], list[str]]:
    """Returns what the upper levels of a folder contain, and the paths of the folders below them."""
    kind, path = protocol_and_path(folder)
    system = connection(kind)
    found: list[dict[str, Any]] = []
    level = [path]
    try:
        system.invalidate_cache()
        with ThreadPoolExecutor(_THREADS) as pool:
            for depth in range(_DEPTH):
                if not level or (depth and len(level) >= _SPREAD):
                    break
                entries = [
                    *itertools.chain.from_iterable(pool.map(lambda each: _entries(system, each), level))
                ]
                found += [each for each in entries if each["type"] != "directory"]
                level = [each["name"].rstrip("/") for each in entries if each["type"] == "directory"]
    except Exception as error:
        raise storage_error(folder, error) from error
    return found, level


def _objects(kind: str, path: str, found: Iterable[dict[str, Any]]) -> list[StoredObject]:
    """Returns objects sorted by address, without the markers of empty folders."""
    objects = [
        StoredObject(f"{kind}://{each['name']}", int(each["size"]), version_tag(kind, each))
        for each in found
        if not each["name"].endswith("/") and each["name"] != path
    ]
    return sorted(objects, key=lambda each: each.place)


def shard_files(pattern: str | os.PathLike[str], endings: tuple[str, ...]) -> list[StoredObject]:
    """Returns the files or objects that a pattern names, sorted by name.

    Args:
        pattern: A file; a folder, with the files of some endings in it; or names with `*`, `?` and
            `{000..127}` or `{a,b}`. Local, or in object storage.
        endings: The endings of the names of shards in a folder, in lower case.

    Raises:
        ValueError: If no file has such a name, or a numbered one is missing.
        StorageError: If object storage is not readable.
    """
    text = os.fspath(pattern)
    names = _expanded(text) if is_remote(text) else [os.path.expanduser(each) for each in _expanded(text)]
    listed = [
        _remote_shards(each, endings) if is_remote(each) else _local_shards(each, endings) for each in names
    ]
    missing = [name for name, each in zip(names, listed, strict=True) if not each]
    if missing:
        more = f" and {len(missing) - 1:,} more" if len(missing) > 1 else ""
        wanted = "" if len(names) > 1 else f"; expected files that end in {', '.join(endings)}"
        raise ValueError(f"no shard at {missing[0]!r}{more}{wanted}")
    found = {each.place: each for each in itertools.chain.from_iterable(listed)}
    return [found[place] for place in sorted(found)]


def _local_shards(name: str, endings: tuple[str, ...]) -> list[StoredObject]:
    if os.path.isdir(name):
        entries = sorted(os.listdir(name))
        names = [os.path.join(name, each) for each in entries if _is_shard(each, endings)]
    else:
        names = sorted(glob.glob(name)) if glob.has_magic(name) else [name]
    return [
        StoredObject(os.path.abspath(each), status.st_size, local_tag(status))
        for each in names
        if os.path.isfile(each) and (status := os.stat(each))
    ]


def _remote_shards(name: str, endings: tuple[str, ...]) -> list[StoredObject]:
    kind, path = protocol_and_path(name)
    system = connection(kind)
    try:
        system.invalidate_cache()
        if glob.has_magic(path):
            entries = [*system.glob(path, detail=True).values()]
        else:
            entries = _entries(system, path)
            if any(each["name"].rstrip("/") != path for each in entries):
                entries = [each for each in entries if _is_shard(each["name"].rpartition("/")[2], endings)]
    except FileNotFoundError:
        return []
    except Exception as error:
        raise storage_error(name, error) from error
    return [
        StoredObject(f"{kind}://{each['name']}", int(each["size"]), version_tag(kind, each))
        for each in entries
        if each["type"] == "file"
    ]


def _is_shard(name: str, endings: tuple[str, ...]) -> bool:
    return name.lower().endswith(endings) and not is_foreign(name)


def _entries(system: Any, path: str) -> list[dict[str, Any]]:
    """Returns what is directly in a folder, or an object itself."""
    try:
        return system.ls(path, detail=True)
    except FileNotFoundError as error:
        raise FileNotFoundError(path) from error


def _expanded(text: str) -> list[str]:
    """Returns the names that braces stand for: `{000..127}` for numbers, `{a,b}` for texts."""
    found = _BRACES.search(text)
    if found is None:
        return [text]
    numbers = _NUMBERS.fullmatch(found[1])
    if numbers is not None:
        first, last = int(numbers[1]), int(numbers[2])
        if last < first:
            raise ValueError(
                f"{found[0]} in {text!r} has no numbers: the first one is larger than the last one"
            )
        width = len(numbers[1])
        choices = [f"{number:0{width}d}" for number in range(first, last + 1)]
    else:
        choices = found[1].split(",")
    before, after = text[: found.start()], text[found.end() :]
    return [before + choice + rest for rest in _expanded(after) for choice in choices]
