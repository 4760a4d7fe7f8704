"""A first look at all images of a dataset: sizes, formats, bad ones, near duplicates. One pass, and kept."""

import contextlib
import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

import numpy as np

from transfer_jax.data.dataset import ImageDataset, summarize_images
from transfer_jax.data.decode import FORMATS, BadImageError, ImageSummary
from transfer_jax.data.duplicates import SIDE, connected_groups, near_duplicates, sketch
from transfer_jax.data.tfds import default_data_dir
from transfer_jax.distributed import processes
from transfer_jax.storage.atomic_write import write_atomically

_VERSION = 1
"""Of what is kept; to be raised when any of it is found in another way."""
_KEPT = ("sizes", "gray", "kinds", "bad", "pairs")


@dataclasses.dataclass(frozen=True, eq=False)
class ImageScan:
    """What a first look at `n` images found.

    Attributes:
        sizes: int32 `(n, 2)`, width and height in pixels; 0 where an image is bad.
        gray: bool `(n,)`, whether it has no colours.
        kinds: int32 `(n,)`, the format of its file, a position in `FORMATS`; -1 for none.
        bad: bool `(n,)`, whether it cannot be read.
        pairs: int32 `(pairs, 2)`, near duplicates.
        reasons: What is wrong with each bad image, in order.
    """

    sizes: np.ndarray
    gray: np.ndarray
    kinds: np.ndarray
    bad: np.ndarray
    pairs: np.ndarray
    reasons: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.bad)

    @property
    def groups(self) -> np.ndarray:
        """int32 `(n,)`: near duplicates, of each other or by way of others, are in one group."""
        return connected_groups(self.pairs, len(self))

    @property
    def shorter_sides(self) -> np.ndarray:
        """int32, the shorter side of each good image, in pixels."""
        return self.sizes[~self.bad].min(axis=1)


def scan_images(dataset: ImageDataset, progress: Callable[[int], None] | None = None) -> ImageScan:
    """Looks at all images once, in threads and, where there are several processes, in all of them.

    The result is kept in `surveys` in `default_data_dir()` under the dataset's fingerprint, and found there
    the next time.

    Args:
        dataset: The images.
        progress: Called in this thread with the number of images that more were done.
    """
    path = default_data_dir() / "surveys" / f"{dataset.fingerprint[:40]}-{_VERSION}.npy"
    kept = _read(path, dataset)
    if int(processes.sum_over_processes(np.array([kept is not None], np.int32))[0]) == processes.count():
        assert kept is not None
        return kept
    found = _survey(dataset, progress)
    if processes.is_first():
        with contextlib.suppress(OSError):  # It would only have saved time.
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, lambda file: _write(file, found))
    return found


def _survey(dataset: ImageDataset, progress: Callable[[int], None] | None) -> ImageScan:
    total = len(dataset)
    own = np.arange(processes.index(), total, processes.count())
    sizes, gray = np.zeros((len(own), 2), np.int32), np.zeros(len(own), bool)
    kinds, bad = np.full(len(own), -1, np.int32), np.zeros(len(own), bool)
    digests = np.zeros((len(own), 16), np.uint8)
    sketches = np.zeros((len(own), SIDE * SIDE + 2), np.float16)
    for row, found in enumerate(summarize_images(dataset, own)):
        if isinstance(found, ImageSummary):
            sizes[row], gray[row] = (found.width, found.height), found.gray
            kinds[row] = FORMATS.index(found.kind) if found.kind in FORMATS else -1
            digests[row] = np.frombuffer(hashlib.sha256(found.thumbnail.tobytes()).digest()[:16], np.uint8)
            sketches[row] = sketch(found.thumbnail)
        else:
            bad[row] = True
        if progress is not None:
            progress(1)
    sizes, gray, kinds, digests, bad, sketches = (
        processes.gather_interleaved(rows, total) for rows in (sizes, gray, kinds, digests, bad, sketches)
    )
    pairs = np.unique(np.concatenate((_equal(digests, bad), near_duplicates(sketches))), axis=0)
    return ImageScan(sizes, gray, kinds, bad, pairs, _reasons(dataset, bad))


def _equal(digests: np.ndarray, bad: np.ndarray) -> np.ndarray:
    """Pairs of images that look the same to the last bit, each with the next one like it."""
    good = np.flatnonzero(~bad)
    _, which = np.unique(digests[good], axis=0, return_inverse=True)
    order = np.argsort(which, kind="stable")
    same = which[order[1:]] == which[order[:-1]]
    pairs = np.stack((good[order[:-1]][same], good[order[1:]][same]), axis=1)
    return pairs.astype(np.int32)


def _reasons(dataset: ImageDataset, bad: np.ndarray) -> tuple[str, ...]:
    found = summarize_images(dataset, np.flatnonzero(bad))
    return tuple(str(each) if isinstance(each, BadImageError) else "" for each in found)


def _write(file: IO[bytes], found: ImageScan) -> None:
    """One array behind the other."""
    for name in _KEPT:
        np.save(file, getattr(found, name))


def _read(path: Path, dataset: ImageDataset) -> ImageScan | None:
    """What was found before; None if nothing, if that is unreadable, or if a bad image has become good."""
    try:
        with path.open("rb") as file:
            kept = {name: np.load(file) for name in _KEPT}
    except (OSError, ValueError, EOFError):
        return None
    if len(kept["bad"]) != len(dataset):
        return None
    reasons = _reasons(dataset, kept["bad"])
    return ImageScan(**kept, reasons=reasons) if all(reasons) else None
