"""The list of the files of a large folder or table, kept in an index, so that a later start looks at no file.

A start looks at the folders only: their times of modification change when files are added, removed or
renamed. A file that is overwritten in place is noticed when it is read: its size or time is not that of the
list. The list is then discarded, and the run ends with an error; the next start makes it again.
"""

import contextlib
import dataclasses
import hashlib
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from transfer_jax.data.dataset import ImageDataset
from transfer_jax.data.folder_tree import UNKNOWN
from transfer_jax.data.index import (
    INDEX_FOLDER,
    DatasetIndex,
    IndexInvalidError,
    IndexProgress,
    PartIndex,
    build_index,
    index_place,
    read_index,
)
from transfer_jax.data.index.dataset_index import INDEX, plain_json
from transfer_jax.tasks import task_from_json

LISTED_FROM = 50_000
"""Number of files from which their list is kept."""
_RECENT = 2_000_000_000
"""Nanoseconds within which a second change of a folder may leave its time as it is, on some disks."""
_THREADS, _MANY = 16, 500
"""Threads that look at folders, if there are many."""
_KIND = "files 1"
_OPTIONAL = ("weights", "strata", "held_out", "test", "together")


@dataclasses.dataclass(frozen=True)
class ListSource:
    """A folder or a table whose list of files is kept.

    Attributes:
        folder: The folder of the images or of the table, in which the index is.
        options: All that the list depends on apart from files and folders, as JSON.
        files: Further files that it depends on, such as the table.
    """

    folder: Path
    options: Mapping[str, Any]
    files: tuple[str, ...] = ()

    def opened(self) -> ImageDataset | None:
        """Returns the dataset of the list, or None if there is none or something has changed."""
        place = index_place(self.folder, self._name, make=False)
        try:
            index = read_index(place)
        except IndexInvalidError:
            return None
        if index.kind != _KIND or index.key != plain_json(self._key):
            return None
        known = dict(index.parts[0])
        found = self._stamps(known)
        return None if found != known else _dataset(index, os.fspath(self.folder))

    def kept(
        self,
        dataset: ImageDataset,
        files: Sequence[str],
        stamps: Sequence[tuple[int, int]],
        folders: Mapping[str, int],
        progress: IndexProgress | None = None,
    ) -> ImageDataset:
        """Keeps the list of a dataset if it is large, and returns the dataset of the list.

        Args:
            dataset: The dataset.
            files: The files, `n` of them.
            stamps: Size and time of each file, as in `FoundImages`.
            folders: The times of modification of all folders that were listed, read before that.
            progress: Receives a line about the list; None shows none.
        """
        if len(dataset) < LISTED_FROM or UNKNOWN in stamps:
            return dataset
        start = os.path.join(os.fspath(self.folder), "")

        def relative(path: str) -> str:
            if path + os.sep == start:
                return ""
            inside = path.removeprefix(start)
            return inside if inside != path or os.path.isabs(path) else os.path.abspath(path)

        listed = {relative(path): at for path, at in folders.items()}
        if listed.get("") not in (None, os.stat(self.folder).st_mtime_ns):
            return dataset  # A file or folder was added meanwhile.
        paths = [*map(relative, files)]
        place = index_place(self.folder, self._name)
        known = self._stamps({*listed, *map(os.path.dirname, paths), *self.files})
        recent = time.time_ns() - _RECENT
        times = [*listed.values(), *(at for at in known.values() if isinstance(at, int))]
        changed = any(known[path] != at for path, at in listed.items() if path)
        if changed or None in known.values() or max(times) > recent:
            return dataset
        groups, codes = (
            (None, None) if dataset.groups is None else np.unique(dataset.groups, return_inverse=True)
        )
        columns = {name: getattr(dataset, name) for name in _OPTIONAL if getattr(dataset, name) is not None}
        columns |= {} if codes is None else {"groups": codes.astype(np.int32)}
        texts = {"files": paths}
        if paths != [*dataset.names]:
            texts["names"] = [*dataset.names]
        part = PartIndex(
            {
                "labels": dataset.labels,
                "sizes": np.array([size for size, _ in stamps], np.int64),
                "modified": np.array([at for _, at in stamps], np.int64),
                **columns,
            },
            texts,
        )
        about = {
            "task": dataset.task.to_json(),
            "notes": [*dataset.notes],
            "groups": None if groups is None else groups.tolist(),
            "fingerprint": dataset.fingerprint,
        }
        try:
            index = build_index(
                _KIND, self._key, [[[*each] for each in sorted(known.items())]], lambda _: part, place,
                progress, finish=lambda joined: (about, {}),
            )  # fmt: skip
        except OSError as error:  # It only saves time.
            if progress is not None:
                progress.log(f"the list of files is not kept: {error}")
            return dataset
        return _dataset(index, os.fspath(self.folder))

    @property
    def _name(self) -> str:
        return f"files {sorted(self.options.items())} {self.files}"

    @property
    def _key(self) -> dict[str, Any]:
        return {**self.options, "files": [*self.files]}

    def _stamps(self, paths: Iterable[str]) -> dict[str, Any]:
        """Returns what folders and files are now: times and sizes; None if they are missing."""
        paths = [*paths]
        if len(paths) < _MANY:
            return {path: self._stamp(path) for path in paths}
        with ThreadPoolExecutor(_THREADS) as pool:  # On a disk of a network each takes a while.
            return dict(zip(paths, pool.map(self._stamp, paths, chunksize=64), strict=True))

    def _stamp(self, path: str) -> Any:
        place = os.path.join(self.folder, path)
        try:
            if path in ("", "."):  # The index is in this folder, whose time changes with it.
                names = sorted(name for name in os.listdir(self.folder) if name != INDEX_FOLDER)
                return hashlib.sha256("\0".join(names).encode(errors="surrogateescape")).hexdigest()
            status = os.stat(place)
        except OSError:
            return None
        return [status.st_size, status.st_mtime_ns] if path in self.files else status.st_mtime_ns


class ReadListed:
    """A `Read` of the files of a list, which compares each file with it. Other processes may receive it.

    Args:
        index: The list.
        folder: The folder that the paths start from.
    """

    def __init__(self, index: DatasetIndex, folder: str) -> None:
        self._index, self._folder = index, folder
        self._load()

    def _load(self) -> None:
        self._files = self._index.texts("files")
        self._sizes, self._modified = self._index.column("sizes"), self._index.column("modified")

    def __getstate__(self) -> dict[str, Any]:
        return {"_index": self._index, "_folder": self._folder}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._load()

    def __call__(self, index: int) -> bytes:
        path = os.path.join(self._folder, self._files[index])
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            if (status.st_size, status.st_mtime_ns) != (self._sizes[index], self._modified[index]):
                with contextlib.suppress(OSError):
                    (self._index.place.folder / INDEX).unlink(missing_ok=True)
                raise OSError(
                    f"{path!r} has changed since the list of files was made; the list is discarded, "
                    "start the run again"
                )
            return file.read()


def _dataset(index: DatasetIndex, folder: str) -> ImageDataset:
    """Returns the dataset of a list."""
    task = task_from_json(index.about["task"])
    groups, codes = index.about["groups"], index.get("groups")
    optional: dict[str, Any] = {name: index.get(name) for name in _OPTIONAL}
    return ImageDataset(
        read=ReadListed(index, folder),
        labels=index.column("labels"),
        names=index.texts("names" if "names" in index.text_names else "files"),
        class_names=task.names,
        task=task,
        fingerprint=index.fingerprint,
        sizes=index.column("sizes"),
        notes=tuple(index.about["notes"]),
        groups=None if groups is None or codes is None else np.array(groups, np.str_)[codes],
        **optional,
    )
