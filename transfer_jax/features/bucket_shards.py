"""The shards of one cache in object storage, downloaded when their rows are needed."""

import collections
import concurrent.futures
import functools
import hashlib
import io
import threading
from collections.abc import Iterable

import numpy as np

from transfer_jax.distributed import processes
from transfer_jax.features.cache_files import BucketFiles, shard_key
from transfer_jax.features.manifest import CorruptFeaturesError, Manifest, shard_name
from transfer_jax.storage.atomic_write import sha256
from transfer_jax.storage.object_cache import ObjectCache
from transfer_jax.storage.remote import display_path

_OPEN = 160
"""Shards that stay open; the least recently used ones are closed."""
_DOWNLOADS = 16
"""Downloads at a time."""
_RANGE = 0.5
"""Largest fraction of a shard that is read as a range instead of downloading the shard."""


class BucketShards:
    """The shards of a cache in object storage.

    With several processes, neighbouring rows are read as a range of bytes: the other rows of the shard
    belong to other processes. Other shards are downloaded as a whole into an `ObjectCache`, in which the
    file of a shard has the name of its hash, and are compared with the hash when they are opened.

    Args:
        files: The files of the cache.
        manifest: Its manifest.
    """

    def __init__(self, files: BucketFiles, manifest: Manifest) -> None:
        self._files, self._manifest = files, manifest
        self._objects = ObjectCache()
        self._arrays: collections.OrderedDict[int, np.ndarray] = collections.OrderedDict()
        self._lock = threading.Lock()
        self._opening: dict[int, threading.Lock] = {}
        self._pool = concurrent.futures.ThreadPoolExecutor(_DOWNLOADS, "feature-shards")

    def arrays(self, offsets: dict[int, np.ndarray]) -> list[tuple[np.ndarray, int]]:
        """Returns for each shard an array with its rows, and the offset of the first row in that array.

        Args:
            offsets: Offsets of rows, by index of the shard.
        """
        opened = [self._opened(index) for index in offsets]
        if all(each is not None for each in opened):
            return [(each, 0) for each in opened if each is not None]
        return list(self._pool.map(self._part, offsets.keys(), offsets.values()))

    def whole(self, indices: Iterable[int]) -> list[np.ndarray]:
        """Returns copies of some shards in memory."""
        return list(self._pool.map(lambda index: np.array(self._open(index)), indices))

    def prefetch(self, indices: Iterable[int]) -> None:
        """Begins to download shards in the background; errors are raised when their rows are needed."""
        for index in indices:
            if self._opened(index) is None:
                self._pool.submit(self._open, index)

    def _part(self, index: int, offsets: np.ndarray) -> tuple[np.ndarray, int]:
        first, last = int(offsets.min()), int(offsets.max()) + 1
        is_range = last - first <= len(offsets) and last - first <= _RANGE * self._manifest.rows_of(index)
        if is_range and processes.count() > 1 and self._opened(index) is None:
            return self._range(index, first, last), first
        return self._open(index), 0

    def _range(self, index: int, first: int, last: int) -> np.ndarray:
        row, name = self._manifest.row_format.row, shard_name(index)
        start = self._sizes[name] - (self._manifest.rows_of(index) - first) * row.itemsize
        end = start + (last - first) * row.itemsize
        key = f"features {self._manifest.files[name]} {start}-{end}"
        content = self._objects.get(key, end - start)
        if content is None:
            content = self._files.read(name, start, end)
            self._objects.put(key, content)
        return np.frombuffer(content, row.base).reshape(last - first, *row.shape)

    @functools.cached_property
    def _sizes(self) -> dict[str, int]:
        return self._files.sizes()

    def _opened(self, index: int) -> np.ndarray | None:
        with self._lock:
            if index in self._arrays:
                self._arrays.move_to_end(index)
            return self._arrays.get(index)

    def _open(self, index: int) -> np.ndarray:
        with self._opening.setdefault(index, threading.Lock()):
            found = self._opened(index)
            if found is not None:
                return found
            found = self._load(shard_name(index))
            with self._lock:
                self._arrays[index] = found
                while len(self._arrays) > _OPEN:
                    self._arrays.popitem(last=False)
            return found

    def _load(self, name: str) -> np.ndarray:
        sha = self._manifest.files[name]
        key = shard_key(sha)
        if name not in self._sizes:
            raise FileNotFoundError(f"{display_path(self._files.directory / name)} is missing")
        for _ in range(2):
            try:
                path = self._objects.path(key, self._sizes[name])
                if path is None:
                    path = self._objects.add(
                        key, self._sizes[name], lambda path: self._files.download(name, path)
                    )
                if path is None:  # There is no space for it.
                    break
                mapped = np.load(path, mmap_mode="r")
                if sha256(path) == sha:
                    return np.asarray(mapped)
                self._objects.remove(key)
            except FileNotFoundError:  # Another process has deleted the file to make space.
                continue
        content = self._files.read(name)
        if hashlib.sha256(content).hexdigest() != sha:
            raise CorruptFeaturesError(
                f"{display_path(self._files.directory / name)} does not match its checksum; delete it to "
                "extract its features again"
            )
        return np.load(io.BytesIO(content))
