"""A labelled set of images that is read one image at a time."""

import collections
import dataclasses
import functools
import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from transfer_jax.data.images import BadImageError, decode_image


@dataclasses.dataclass(frozen=True, eq=False)
class ImageDataset:
    """Labelled images; the pixels stay where they are until one is asked for.

    Attributes:
        read: Gives image `i`, either as an encoded file or as uint8 pixels `(h, w)`, `(h, w, 1)` or
            `(h, w, 3)`. Called from several threads at once.
        labels: int32 `(n,)`, positions in `class_names`.
        names: What to call each image in messages and predictions, `n` of them.
        class_names: The classes, in the order of the labels.
        fingerprint: Changes whenever the images or labels change; keys caches and checkpoints.
        strata: Optional int `(n,)`: groups finer than the classes that a split keeps in proportion.
        weights: Optional float32 `(n,)`, above 0: how much each image counts in the loss and in the weighted
            accuracy, such as how sure its label is.
        whole: What a split divided, of which this is a part; None if it is no part.
        rows: int `(n,)`, the positions of the images there.
    """

    read: Callable[[int], bytes | np.ndarray]
    labels: np.ndarray
    names: Sequence[str]
    class_names: tuple[str, ...]
    fingerprint: str
    strata: np.ndarray | None = None
    weights: np.ndarray | None = None
    whole: "ImageDataset | None" = None
    rows: np.ndarray | None = None

    def __post_init__(self) -> None:
        labels = self.labels
        if labels.ndim != 1 or labels.dtype != np.int32:
            raise ValueError(
                f"labels must be int32 of shape (n,), got {labels.dtype} of shape {labels.shape}"
            )
        if np.any((labels < 0) | (labels >= len(self.class_names))):
            raise ValueError(
                f"labels must lie in 0..{len(self.class_names) - 1} ({len(self.class_names)} class names), "
                f"got {labels.min()}..{labels.max()}"
            )
        if len(self.names) != len(labels):
            raise ValueError(f"got {len(self.names)} names for {len(labels)} labels")
        if self.strata is not None and self.strata.shape != labels.shape:
            raise ValueError(
                f"strata must have shape {labels.shape} like the labels, got {self.strata.shape}"
            )
        if self.weights is not None and (self.weights.shape != labels.shape or np.any(self.weights <= 0)):
            raise ValueError(f"weights must be above 0, of shape {labels.shape} like the labels")

    def __len__(self) -> int:
        return len(self.labels)

    def image(self, index: int) -> np.ndarray:
        """Reads image `index` as RGB.

        Returns:
            uint8 pixels `(height, width, 3)`.

        Raises:
            BadImageError: If it cannot be read or decoded, or its array is not an 8-bit gray or RGB image.
        """
        name = self.names[index]
        try:
            content = self.read(index)
        except OSError as error:
            raise BadImageError(f"{name}: cannot be read ({error})") from error
        if isinstance(content, bytes):
            return decode_image(content, name)
        if content.dtype != np.uint8 or content.ndim not in (2, 3):
            raise BadImageError(
                f"{name}: expected uint8 pixels, got {content.dtype} of shape {content.shape}"
            )
        if content.ndim == 2:
            content = content[..., None]
        if content.shape[-1] not in (1, 3):
            raise BadImageError(f"{name}: expected 1 or 3 channels last, got shape {content.shape}")
        return np.repeat(content, 3, axis=-1) if content.shape[-1] == 1 else content

    def subset(self, indices: Sequence[int] | np.ndarray) -> "ImageDataset":
        """The images at `indices`, in that order, under a fingerprint of their own.

        Raises:
            IndexError: If an index is out of range.
        """
        chosen = _checked(indices, len(self))
        read = self.read
        digest = hashlib.sha256(self.fingerprint.encode() + b"\0" + chosen.astype("<i8").tobytes())
        return dataclasses.replace(
            self,
            read=lambda i: read(int(chosen[i])),
            labels=self.labels[chosen],
            names=[self.names[i] for i in chosen],
            fingerprint=digest.hexdigest(),
            strata=None if self.strata is None else self.strata[chosen],
            weights=None if self.weights is None else self.weights[chosen],
            rows=None if self.rows is None else self.rows[chosen],
        )

    def part(self, indices: Sequence[int] | np.ndarray) -> "ImageDataset":
        """A subset that knows what it is a part of; a part of a part is one of the whole."""
        found = self.subset(indices)
        if self.whole is not None:
            return found
        return dataclasses.replace(found, whole=self, rows=np.asarray(indices, dtype=np.int64))

    def of_rows(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """What a batch says of the images at `indices` besides their pixels.

        Returns:
            `label` and `index`, int32 `(b,)`, and `weight`, float32 `(b,)`, if images have weights: their
            mean over the dataset is 1.
        """
        found = {"label": self.labels[indices], "index": indices.astype(np.int32)}
        if self._relative_weights is not None:
            found["weight"] = self._relative_weights[indices]
        return found

    @functools.cached_property
    def _relative_weights(self) -> np.ndarray | None:
        return None if self.weights is None else (self.weights / self.weights.mean()).astype(np.float32)

    def counts(self) -> dict[str, int]:
        """How many images each class has, by class name."""
        numbers = np.bincount(self.labels, minlength=len(self.class_names))
        return dict(zip(self.class_names, numbers.tolist(), strict=True))


def check_images(
    dataset: ImageDataset, progress: Callable[[int], None] | None = None
) -> list[tuple[int, str]]:
    """Decodes every image once, in threads, to find the bad ones before a run does.

    Args:
        dataset: The images to look at.
        progress: Called in this thread after each image with the number done so far.

    Returns:
        `(index, reason)` of every image that raises `BadImageError`, by index.
    """

    def reason(index: int) -> str | None:
        try:
            dataset.image(index)
        except BadImageError as error:
            return str(error)
        return None

    bad: list[tuple[int, str]] = []
    workers = os.cpu_count() or 1
    with ThreadPoolExecutor(workers) as pool:
        pending: collections.deque[Future[str | None]] = collections.deque()  # Short: sets may be huge.
        upcoming = iter(range(len(dataset)))
        for done in range(len(dataset)):
            while len(pending) < 4 * workers and (index := next(upcoming, None)) is not None:
                pending.append(pool.submit(reason, index))
            if (why := pending.popleft().result()) is not None:
                bad.append((done, why))
            if progress is not None:
                progress(done + 1)
    return bad


def without(dataset: ImageDataset, indices: Sequence[int]) -> ImageDataset:
    """The dataset less the images at `indices`, in unchanged order.

    Raises:
        IndexError: If an index is out of range.
    """
    left_out = _checked(indices, len(dataset))
    return dataset.subset(np.setdiff1d(np.arange(len(dataset)), left_out))


def _checked(indices: Sequence[int] | np.ndarray, size: int) -> np.ndarray:
    checked = np.asarray(indices, dtype=np.int64)
    if np.any((checked < 0) | (checked >= size)):
        raise IndexError(f"indices must lie in 0..{size - 1}, got {checked.min()}..{checked.max()}")
    return checked
