"""A folder of feature caches that several processes share, kept within a budget of disk."""

import contextlib
import dataclasses
import logging
import os
from collections.abc import Callable, Container, Iterator, Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from transfer_jax.distributed import processes
from transfer_jax.features.feature_cache import FeatureCache
from transfer_jax.features.manifest import FILE, CorruptFeaturesError, FeatureKey, Manifest
from transfer_jax.storage.remote import pull, remove

_LOCKS = ".locks"
_logger = logging.getLogger(__name__)


class FeatureBudgetError(ValueError):
    """Features need more disk than their budget."""


@dataclasses.dataclass(frozen=True)
class FeatureCacheDir:
    """A folder with a folder a cache; it may stand for one in object storage, see `mirror`.

    One run at a time writes a cache; others that want it wait, and then read it. That holds for the runs of
    one machine, or of machines that share a disk; in object storage two may compute the same, of which one
    stays.

    Attributes:
        root: The folder.
        budget: Bytes that all caches may take; None sets no limit.
    """

    root: Path
    budget: int | None = None

    def directory(self, key: FeatureKey) -> Path:
        """The folder of a key's cache, there or not."""
        return self.root / key.digest()[:20]

    @contextlib.contextmanager
    def writing(self, key: FeatureKey, say: Callable[[str], None]) -> Iterator[Path]:
        """Keeps other runs from writing a key's cache, and yields its folder.

        Args:
            key: The key.
            say: Called with a line if another run has to be waited for.
        """
        directory = self.directory(key)
        if not processes.is_first():  # The first has the lock for all of its run.
            yield directory
            return
        lock = self._lock(directory.name)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            say(f"waiting for another process, which extracts the features in {directory}")
            lock.acquire()
        try:
            yield directory
        finally:
            lock.release()

    def begin(self, manifest: Manifest, directory: Path) -> None:
        """Writes the manifest of a cache, once there is room for all that it lists.

        The caches used least recently are dropped for it. A process that reads one goes on reading it, since
        its files are open.

        Raises:
            FeatureBudgetError: If it alone needs more than the budget.
        """
        with self._lock("budget"):
            if self.budget is not None:
                pull(self.root, only=FILE)
                self._make_room(manifest.bytes, self.budget, directory)
            directory.mkdir(parents=True, exist_ok=True)
            manifest.write(directory)

    def origin(
        self, key: FeatureKey, lower: Sequence[str], weights: Callable[[str], str]
    ) -> FeatureCache | None:
        """Features of the same images at a lower boundary, to compute those of a key from.

        They are as they were computed: nothing is computed from what was stored with fewer bits.

        Args:
            key: What is wanted; where it is there already, nothing is to be computed.
            lower: The boundaries below it, input side first.
            weights: From one of them to the fingerprint of the arrays up to there.

        Returns:
            The cache at the highest of them that is there, whole, and of those arrays; None if there is none.
        """
        pull(self.root, only=FILE)
        there = {manifest.key: path for path, manifest in self._complete()}
        if key.to_json() in there:
            return None
        for boundary in reversed(lower):
            if any(FeatureKey.from_json(other).boundary == boundary for other in there):
                wanted = dataclasses.replace(
                    key, boundary=boundary, weights=weights(boundary), stored=None
                ).to_json()
                if wanted in there:
                    try:
                        return FeatureCache(there[wanted])
                    except (CorruptFeaturesError, FileNotFoundError) as error:
                        _logger.warning("%s; it is not used", error)
        return None

    def _complete(self) -> Iterator[tuple[Path, Manifest]]:
        for path in sorted(self.root.glob(f"*/{FILE}")):
            with contextlib.suppress(FileNotFoundError, CorruptFeaturesError):
                manifest = Manifest.read(path.parent)
                if manifest.complete():
                    yield path.parent, manifest

    def _make_room(self, needed: int, budget: int, keep: Path) -> None:
        if needed > budget:
            raise FeatureBudgetError(
                f"the features need {needed / 1e9:.3g} GB, and {self.root} may take {budget / 1e9:.3g} GB; "
                "raise feature_gigabytes, or choose a later boundary, fewer views or smaller images"
            )
        paths = [path.parent for path in self.root.glob(f"*/{FILE}")]
        paths = [path for path in paths if path != keep and not path.is_symlink()]
        paths.sort(key=lambda path: (path / FILE).stat().st_mtime_ns)
        others = [(path, _bytes(path)) for path in paths]
        total = sum(size for _, size in others)
        for path, size in others:
            if total + needed <= budget:
                break
            if self._drop(path):
                total -= size

    def drop_others(self, boundaries: Container[str | None]) -> None:
        """Deletes all caches but those at some boundaries, and those that a process is writing."""
        for path in sorted(self.root.glob(f"*/{FILE}")):
            with contextlib.suppress(FileNotFoundError, CorruptFeaturesError):
                if FeatureKey.from_json(Manifest.read(path.parent).key).boundary not in boundaries:
                    self._drop(path.parent)

    def _drop(self, directory: Path) -> bool:
        """Deletes a cache, unless a process is writing it."""
        lock = self._lock(directory.name)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return False
        try:
            (directory / FILE).unlink()  # First: what is left of a cache without it is not taken for one.
            remove(directory)
        finally:
            lock.release()
        _logger.info("dropped the features in %s", directory)
        return True

    def _lock(self, name: str) -> FileLock:
        folder = self.root / _LOCKS
        folder.mkdir(parents=True, exist_ok=True)
        return FileLock(folder / name)


def _bytes(directory: Path) -> int:
    """What a cache takes when complete, or what a damaged one takes now."""
    try:
        return Manifest.read(directory).bytes
    except CorruptFeaturesError:
        return sum(path.stat().st_size for path in directory.iterdir())


def touch(directory: Path) -> None:
    """Marks a cache as used now."""
    os.utime(directory / FILE)
