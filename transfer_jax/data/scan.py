"""A scan of all images of a dataset for sizes, formats, bad images and near duplicates. It is cached."""

import contextlib
import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

import numpy as np

from transfer_jax.data.dataset import ImageDataset, summarize_images
from transfer_jax.data.decode import FORMATS, BadImageError, ImageSummary
from transfer_jax.data.near_duplicates import SIDE, connected_groups, near_duplicates, sketch
from transfer_jax.data.tfds import default_data_dir
from transfer_jax.distributed import processes
from transfer_jax.storage.atomic_write import write_atomically

_VERSION = 2
"""Version of the cached results; increase it when their meaning changes."""
_CACHED = ("sizes", "gray", "dark", "paged", "kinds", "bad", "pairs")
"""The attributes of `ImageScan` that are cached."""


@dataclasses.dataclass(frozen=True, eq=False)
class ImageScan:
    """The result of a scan of `n` images.

    Attributes:
        sizes: int32 `(n, 2)`, width and height in pixels; 0 for bad images.
        gray: bool `(n,)`, True for images without colours.
        dark: bool `(n,)`, True for nearly black images.
        paged: bool `(n,)`, True for files with more frames or pages than the one that is used.
        kinds: int32 `(n,)`, positions in `FORMATS` of the file formats; -1 for images in memory.
        bad: bool `(n,)`, True for images that cannot be read.
        pairs: int32 `(pairs, 2)`, positions of near duplicates.
        reasons: The error message of each bad image, in order.
    """

    sizes: np.ndarray
    gray: np.ndarray
    dark: np.ndarray
    paged: np.ndarray
    kinds: np.ndarray
    bad: np.ndarray
    pairs: np.ndarray
    reasons: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.bad)

    @property
    def groups(self) -> np.ndarray:
        """int32 `(n,)`, the number of each image's group of near duplicates; see `connected_groups`."""
        return connected_groups(self.pairs, len(self))

    @property
    def shorter_sides(self) -> np.ndarray:
        """int32, the shorter side of each readable image, in pixels."""
        return self.sizes[~self.bad].min(axis=1)


def scan_images(
    dataset: ImageDataset, progress: Callable[[int], None] | None = None, *, first_only: bool = False
) -> ImageScan:
    """Reads all images once, in threads and in all processes, and returns what it found.

    The result is cached under the dataset's fingerprint in the folder `surveys` of `default_data_dir()`.

    Example:
        >>> scan = scan_images(dataset)
        >>> dataset = drop_images(dataset, np.flatnonzero(scan.bad))

    Args:
        dataset: The images.
        progress: Called in this thread with the number of images that were done since the last call.
        first_only: Whether the first process reads all images, and the others receive what it found.

    Raises:
        NotImagesError: If the examples are not images.
    """
    dataset.check_images("a scan (turn off on_bad_image='skip' and keep_together)")
    path = default_data_dir() / "surveys" / f"{dataset.fingerprint[:40]}-{_VERSION}.npy"
    cached = _read(path, dataset)
    if int(processes.sum_over_processes(np.array([cached is not None], np.int32))[0]) == processes.count():
        assert cached is not None
        return cached
    scan = _first_scan(dataset, progress) if first_only else _scan(dataset, progress)
    if processes.is_first():
        with contextlib.suppress(OSError):  # The cache only saves time.
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, lambda file: _write(file, scan))
    return scan


def _first_scan(dataset: ImageDataset, progress: Callable[[int], None] | None) -> ImageScan:
    """Scans images in the first process, and returns its results in all."""
    own = np.arange(len(dataset) if processes.is_first() else 0)
    found = _looked_at(dataset, own, progress)
    pairs = _pairs(found)
    shape = int(processes.sum_over_processes(np.array([len(pairs)], np.int32))[0]), 2
    columns = {name: found[name] for name in _CACHED if name != "pairs"}
    if not processes.is_first():
        columns = {
            name: np.zeros((len(dataset), *each.shape[1:]), each.dtype) for name, each in columns.items()
        }
        pairs = np.zeros(shape, np.int32)
    shared = {
        name: processes.sum_over_processes(each.astype(np.int32)).astype(each.dtype)
        for name, each in {**columns, "pairs": pairs}.items()
    }
    return ImageScan(**shared, reasons=_reasons(dataset, shared["bad"]))


def _scan(dataset: ImageDataset, progress: Callable[[int], None] | None) -> ImageScan:
    total = len(dataset)
    own = _looked_at(dataset, np.arange(processes.index(), total, processes.count()), progress)
    found = {name: processes.gather_interleaved(rows, total) for name, rows in own.items()}
    pairs = _pairs(found)
    columns = {name: found[name] for name in _CACHED if name != "pairs"}
    return ImageScan(**columns, pairs=pairs, reasons=_reasons(dataset, found["bad"]))


def _looked_at(
    dataset: ImageDataset, own: np.ndarray, progress: Callable[[int], None] | None
) -> dict[str, np.ndarray]:
    """Reads images and returns the columns of `ImageScan` and those that near duplicates are found by."""
    sizes = np.zeros((len(own), 2), np.int32)
    gray, dark, paged = (np.zeros(len(own), bool) for _ in range(3))
    kinds, bad = np.full(len(own), -1, np.int32), np.zeros(len(own), bool)
    digests = np.zeros((len(own), 16), np.uint8)
    sketches = np.zeros((len(own), SIDE * SIDE + 2), np.float16)
    for row, summary in enumerate(summarize_images(dataset, own)):
        if isinstance(summary, ImageSummary):
            sizes[row] = summary.width, summary.height
            gray[row], dark[row], paged[row] = summary.gray, summary.dark, summary.paged
            kinds[row] = FORMATS.index(summary.kind) if summary.kind in FORMATS else -1
            digests[row] = np.frombuffer(hashlib.sha256(summary.thumbnail.tobytes()).digest()[:16], np.uint8)
            sketches[row] = sketch(summary.thumbnail)
        else:
            bad[row] = True
        if progress is not None:
            progress(1)
    columns = {"sizes": sizes, "gray": gray, "dark": dark, "paged": paged, "kinds": kinds, "bad": bad}
    return {**columns, "digests": digests, "sketches": sketches}


def _pairs(found: dict[str, np.ndarray]) -> np.ndarray:
    """Returns the near duplicates among images that were looked at, int32 `(pairs, 2)`."""
    pairs = (_equal_pairs(found["digests"], found["bad"]), near_duplicates(found["sketches"]))
    return np.unique(np.concatenate(pairs), axis=0)


def _equal_pairs(digests: np.ndarray, bad: np.ndarray) -> np.ndarray:
    """Returns pairs of images with equal thumbnails; each image is paired with the next equal one."""
    good = np.flatnonzero(~bad)
    _, which = np.unique(digests[good], axis=0, return_inverse=True)
    order = np.argsort(which, kind="stable")
    same = which[order[1:]] == which[order[:-1]]
    pairs = np.stack((good[order[:-1]][same], good[order[1:]][same]), axis=1)
    return pairs.astype(np.int32)


def _reasons(dataset: ImageDataset, bad: np.ndarray) -> tuple[str, ...]:
    """Returns the error message of each bad image; an empty string if it is readable now."""
    summaries = summarize_images(dataset, np.flatnonzero(bad))
    return tuple(str(each) if isinstance(each, BadImageError) else "" for each in summaries)


def _write(file: IO[bytes], scan: ImageScan) -> None:
    """Writes the arrays one after the other."""
    for name in _CACHED:
        np.save(file, getattr(scan, name))


def _read(path: Path, dataset: ImageDataset) -> ImageScan | None:
    """Returns the cached scan; None if it is missing or unreadable, or if a bad image is readable now."""
    try:
        with path.open("rb") as file:
            arrays = {name: np.load(file) for name in _CACHED}
    except (OSError, ValueError, EOFError):
        return None
    if len(arrays["bad"]) != len(dataset):
        return None
    reasons = _reasons(dataset, arrays["bad"])
    return ImageScan(**arrays, reasons=reasons) if all(reasons) else None
