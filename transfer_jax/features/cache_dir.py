"""A folder of feature caches that several processes use, with a limit on its size on disk."""

import contextlib
import dataclasses
import logging
import re
import time
from collections.abc import Callable, Container, Iterator, Sequence
from pathlib import Path

from transfer_jax.distributed import processes
from transfer_jax.features.cache_files import FILE, BucketFiles, folders, is_cache_file, open_files
from transfer_jax.features.feature_cache import FeatureCache
from transfer_jax.features.manifest import CorruptFeaturesError, FeatureKey, Manifest
from transfer_jax.storage.file_lock import file_lock, try_file_lock
from transfer_jax.storage.remote import display_path

_LOCKS = ".locks"
_CACHE = re.compile("[0-9a-f]{20}")
"""The names of the folders of caches."""
_ABANDONED_SECONDS = 3600.0
"""Age after which an incomplete cache in object storage counts as one that no process is writing."""
_logger = logging.getLogger(__name__)


class FeatureBudgetError(ValueError):
    """Features that need more disk space than their budget."""


@dataclasses.dataclass(frozen=True)
class FeatureCacheDir:
    """A folder of feature caches, one subfolder for each cache.

    One run at a time writes a cache; other runs that need it wait, then read it. This holds for runs on one
    machine, or on machines with a common disk. In object storage two runs may compute the same features; one
    result stays. Files in object storage are written there and read from there; nothing is mirrored.

    Attributes:
        root: The folder. It may be the local copy of a folder in object storage, see `storage.remote`.
        budget: Largest total size of all caches, in bytes; None sets no limit.
    """

    root: Path
    budget: int | None = None

    def directory(self, key: FeatureKey) -> Path:
        """Returns the folder of a key's cache, which may not exist."""
        return self.root / key.digest()[:20]

    @contextlib.contextmanager
    def write_lock(self, key: FeatureKey, log: Callable[[str], None]) -> Iterator[Path]:
        """Locks a key's cache against writes of other runs, and yields its folder.

        Args:
            key: The key.
            log: Called with a line of text if another run holds the lock.
        """
        directory = self.directory(key)
        if not processes.is_first():  # The first process holds the lock for all processes of the run.
            yield directory
            return
        text = f"waiting for another process that is extracting the features in {display_path(directory)}"
        with file_lock(self._lock(directory.name), lambda: log(text)):
            yield directory

    def reserve(self, manifest: Manifest, directory: Path) -> None:
        """Makes room for a cache within the budget, and writes its manifest.

        The least recently used caches are deleted if necessary. A process that is reading one of them is not
        affected, since its files are open.

        Args:
            manifest: The manifest of the new cache.
            directory: The folder of the new cache.

        Raises:
            FeatureBudgetError: If the cache alone needs more than the budget.
        """
        with file_lock(self._lock("budget")):
            if self.budget is not None:
                self._make_room(manifest.bytes, self.budget, directory)
            directory.mkdir(parents=True, exist_ok=True)
            manifest.write(directory)

    def origin(
        self, key: FeatureKey, lower: Sequence[str], weights: Callable[[str], str]
    ) -> FeatureCache | None:
        """Finds cached features at a lower boundary from which those of a key can be computed.

        Only features that are stored as they were computed are used, not those with a reduced precision.

        Args:
            key: The key of the features to compute.
            lower: The boundaries below that of the key, input side first.
            weights: Function from a boundary to the fingerprint of the arrays up to that boundary.

        Returns:
            The complete cache of the same images at the highest of these boundaries. None if there is none,
            or if the features of the key are cached already.
        """
        complete = {manifest.key: path for path, manifest in self._complete()}
        if key.to_json() in complete:
            return None
        for boundary in reversed(lower):
            if any(FeatureKey.from_json(other).boundary == boundary for other in complete):
                wanted = dataclasses.replace(
                    key, boundary=boundary, weights=weights(boundary), stored=None
                ).to_json()
                if wanted in complete:
                    try:
                        return FeatureCache(complete[wanted])
                    except (CorruptFeaturesError, FileNotFoundError) as error:
                        _logger.warning("%s; the cache is not used", error)
        return None

    def _complete(self) -> Iterator[tuple[Path, Manifest]]:
        """Yields the folder and the manifest of each complete cache."""
        for path in self._caches():
            with contextlib.suppress(FileNotFoundError, CorruptFeaturesError):
                manifest = Manifest.read(path)
                if manifest.complete():
                    yield path, manifest

    def _caches(self) -> list[Path]:
        """Returns the folders of all caches, sorted, without copies that have other names."""
        return [self.root / name for name in folders(self.root) if _CACHE.fullmatch(name)]

    def _make_room(self, needed: int, budget: int, keep: Path) -> None:
        """Deletes the least recently used caches except `keep` until `needed` bytes fit into the budget."""
        if needed > budget:
            raise FeatureBudgetError(
                f"the features need {needed / 1e9:.3g} GB, more than the budget of {budget / 1e9:.3g} GB of "
                f"{display_path(self.root)}; raise feature_gigabytes, or choose a later boundary, fewer "
                "views or smaller images"
            )
        paths = [path for path in self._caches() if path != keep and not path.is_symlink()]
        paths.sort(key=lambda path: open_files(path).last_use())
        others = [(path, _bytes(path)) for path in paths]
        total = sum(size for _, size in others)
        for path, size in others:
            if total + needed <= budget:
                break
            if self._drop(path):
                total -= size

    def drop_others(self, boundaries: Container[str | None]) -> None:
        """Deletes all caches except those at some boundaries and those that a process is writing.

        Args:
            boundaries: Boundaries of the caches to keep.
        """
        for path in self._caches():
            with contextlib.suppress(FileNotFoundError, CorruptFeaturesError):
                if FeatureKey.from_json(Manifest.read(path).key).boundary not in boundaries:
                    self._drop(path)

    def _drop(self, directory: Path) -> bool:
        """Deletes a cache and returns True, unless a process is writing it."""
        with try_file_lock(self._lock(directory.name)) as locked:
            if not locked or _is_written_elsewhere(directory):
                return False
            delete_cache(directory)
        _logger.info("deleted the features in %s", display_path(directory))
        return True

    def _lock(self, name: str) -> Path:
        return self.root / _LOCKS / name


def delete_cache(directory: Path) -> None:
    """Deletes the files of a cache, and its folder if it has no other files."""
    files = open_files(directory)
    files.delete([FILE])  # First: a folder without a manifest is no cache.
    files.delete(files.names())
    for path in unfinished_files(directory):
        path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        directory.rmdir()


def unfinished_files(directory: Path) -> list[Path]:
    """Returns the temporary files in the folder of a cache, or in its local copy."""
    found = directory.iterdir() if directory.is_dir() else ()
    return sorted(path for path in found if path.name.startswith(".") and is_cache_file(path.name))


def _bytes(directory: Path) -> int:
    """Returns the size in bytes of a complete cache, or the present size of a damaged one."""
    try:
        return Manifest.read(directory).bytes
    except (CorruptFeaturesError, FileNotFoundError):
        return sum(open_files(directory).sizes().values())


def _is_written_elsewhere(directory: Path) -> bool:
    """Returns True if another machine may be writing a cache in object storage, which has no locks."""
    files = open_files(directory)
    if not isinstance(files, BucketFiles) or time.time() - files.last_write() > _ABANDONED_SECONDS:
        return False
    with contextlib.suppress(FileNotFoundError, CorruptFeaturesError):
        return not Manifest.read(directory).complete()
    return False
