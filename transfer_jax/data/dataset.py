"""A labelled set of images that is read one image at a time."""

import collections
import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from PIL import Image

from transfer_jax.data.decode import BadImageError, Look, look_at, picture_of, pixels_of
from transfer_jax.distributed import processes


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
        held_out: Optional bool `(n,)`: the images that the source itself sets aside to evaluate on.
        together: Optional int `(n,)`: images of one number stay on one side of a split, such as near
            duplicates.
        groups: Optional strings `(n,)`: what kind of image each is, apart from its class, to score each kind
            by itself. They decide nothing, and are no part of the fingerprint.
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
    held_out: np.ndarray | None = None
    together: np.ndarray | None = None
    groups: np.ndarray | None = None
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
        for name in ("strata", "held_out", "together", "groups"):
            values = getattr(self, name)
            if values is not None and values.shape != labels.shape:
                raise ValueError(f"{name} must have shape {labels.shape} like the labels, got {values.shape}")
        if self.weights is not None and (self.weights.shape != labels.shape or np.any(self.weights <= 0)):
            raise ValueError(f"weights must be above 0, of shape {labels.shape} like the labels")
        if self.groups is not None and self.groups.dtype.kind != "U":
            raise ValueError(f"groups must be strings, got {self.groups.dtype}")

    def __len__(self) -> int:
        return len(self.labels)

    def image(self, index: int) -> np.ndarray:
        """Reads image `index` as RGB.

        Returns:
            uint8 pixels `(height, width, 3)`.

        Raises:
            BadImageError: If it cannot be read or decoded, or its array is not an 8-bit gray or RGB image.
        """
        return pixels_of(self.picture(index))

    def picture(self, index: int) -> Image.Image:
        """Reads image `index` as a picture, mode L if it is gray, else RGB; errors are those of `image`."""
        return picture_of(self._content(index), self.names[index])

    def look(self, index: int) -> Look:
        """Looks at image `index`, which is faster than to read it; errors are those of `image`."""
        return look_at(self._content(index), self.names[index])

    def _content(self, index: int) -> bytes | np.ndarray:
        """An encoded file, or pixels, `(h, w)` or `(h, w, 3)`."""
        name = self.names[index]
        try:
            content = self.read(index)
        except OSError as error:
            raise BadImageError(f"{name}: cannot be read ({error})") from error
        if isinstance(content, bytes):
            return content
        if content.dtype != np.uint8 or content.ndim not in (2, 3):
            raise BadImageError(
                f"{name}: expected uint8 pixels, got {content.dtype} of shape {content.shape}"
            )
        if content.ndim == 3 and content.shape[-1] not in (1, 3):
            raise BadImageError(f"{name}: expected 1 or 3 channels last, got shape {content.shape}")
        return content[..., 0] if content.ndim == 3 and content.shape[-1] == 1 else content

    def subset(self, indices: Sequence[int] | np.ndarray) -> "ImageDataset":
        """The images at `indices`, in that order, under a fingerprint of their own.

        Raises:
            IndexError: If an index is out of range.
        """
        chosen = _checked(indices, len(self))
        read = self.read
        digest = hashlib.sha256(self.fingerprint.encode() + b"\0" + chosen.astype("<i8").tobytes())

        def of_chosen(values: np.ndarray | None) -> np.ndarray | None:
            return None if values is None else values[chosen]

        return dataclasses.replace(
            self,
            read=lambda i: read(int(chosen[i])),
            labels=self.labels[chosen],
            names=[self.names[i] for i in chosen],
            fingerprint=digest.hexdigest(),
            strata=of_chosen(self.strata),
            weights=of_chosen(self.weights),
            held_out=of_chosen(self.held_out),
            together=of_chosen(self.together),
            groups=of_chosen(self.groups),
            rows=of_chosen(self.rows),
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


def each_look(dataset: ImageDataset, indices: Sequence[int] | np.ndarray) -> Iterator[Look | BadImageError]:
    """Looks at images in threads, and gives what each look found, in order: the look, or what is wrong."""

    def found(index: int) -> Look | BadImageError:
        try:
            return dataset.look(index)
        except BadImageError as error:
            return error

    workers = processes.cores()
    with ThreadPoolExecutor(workers) as pool:
        pending: collections.deque[Future[Look | BadImageError]] = collections.deque()
        upcoming = iter(indices)
        for _ in range(len(indices)):  # The queue is kept short: sets may be huge.
            while len(pending) < 4 * workers and (index := next(upcoming, None)) is not None:
                pending.append(pool.submit(found, int(index)))
            yield pending.popleft().result()


def without(dataset: ImageDataset, indices: Sequence[int] | np.ndarray) -> ImageDataset:
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
