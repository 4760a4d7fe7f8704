"""A labelled set of examples, mostly images, that are read one at a time."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import cast

import numpy as np
from PIL import Image

from transfer_jax.data.contents import (
    Content,
    Names,
    ReadMany,
    cache_bytes_of,
    in_pieces,
    names_of,
    read_again,
    read_each,
    reader_of,
    requests_of,
)
from transfer_jax.data.decode import BadImageError, ImageSummary, summarize_image, to_pil, to_rgb_array
from transfer_jax.data.grouped import positions
from transfer_jax.data.input_arrays import InputSpec, stack_inputs
from transfer_jax.data.source_image import SourceImage
from transfer_jax.data.thread_map import thread_map
from transfer_jax.storage.byte_ranges import ByteRange
from transfer_jax.tasks import SingleLabel, Task

_BLOCK = 1 << 20
"""Number of positions that are hashed at once."""


class NotImagesError(ValueError):
    """The examples of a dataset are not images."""


@dataclasses.dataclass(frozen=True, eq=False)
class ImageDataset:
    """Labelled images. Labels and names are in memory; an image is read when it is needed.

    With `inputs`, the examples are other data, such as tokens or signals: each is a dictionary of arrays.
    Splits, weights and predictions are the same for both. See `from_examples`.

    Attributes:
        read: Function from the position of an image to its encoded file, or to uint8 pixels of the shape
            `(height, width)`, `(height, width, 1)` or `(height, width, 3)`; or to the arrays by name, if
            there are `inputs`. Several threads call it; processes that read images receive a pickled copy.
        labels: The targets of the images, as their task has them: int32 `(n,)`, positions in `class_names`,
            for a single label; uint8 `(n, labels)` for several; float32 `(n, quantities)` for regression.
        names: Names of the images in messages and predictions, `n` of them. Large sources have names by a
            rule, which take no memory.
        class_names: The classes in the order of the labels; or the labels, or the quantities.
        fingerprint: Hash of the images and labels; part of the keys of caches and checkpoints.
        strata: int `(n,)`, groups finer than the classes whose proportions a split keeps; None uses classes.
        weights: float32 `(n,)`, positive weight of each image in the loss and the weighted accuracy, such as
            the confidence of its label; None weights all images equally.
        held_out: bool `(n,)`, True for the validation images of a source that has some; None if it has none.
        test: bool `(n,)`, True for the test images of a source that has some; None if it has none.
        together: int `(n,)`; images with the same number, such as near duplicates, stay on the same side of a
            split. None lets a split separate all images.
        groups: Strings `(n,)`, the kind of each image apart from its class, such as its camera; diagnostics
            score each group. They affect neither training nor splits nor the fingerprint. None for no groups.
        sizes: int64 `(n,)`, the size of each file in bytes; None if there are no files.
        notes: Sentences about how the source was read that a user should know, such as the number of files
            of each kind that were left out. Commands print them.
        parent: The dataset that a split divided, if this is a part of it; otherwise None.
        rows: int `(n,)`, the positions of the images in `parent`; None if there is no parent.
        read_many: Function from the positions of several images to a list of what `read` returns of each, or
            of the error of an image that cannot be read; for sources that read several images faster
            than one after the other. None calls `read` for each.
        inputs: Shape and dtype of each array of an example, by name, if the examples are not images; None
            for images.
        task: The kind of the targets; its names become `class_names`. None for one class for each image.

    Raises:
        ValueError: If shapes, dtypes or ranges of the attributes are inconsistent.
    """

    read: Callable[[int], Content]
    labels: np.ndarray
    names: Names
    class_names: tuple[str, ...]
    fingerprint: str
    strata: np.ndarray | None = None
    weights: np.ndarray | None = None
    held_out: np.ndarray | None = None
    test: np.ndarray | None = None
    together: np.ndarray | None = None
    groups: np.ndarray | None = None
    sizes: np.ndarray | None = None
    notes: tuple[str, ...] = ()
    parent: "ImageDataset | None" = None
    rows: np.ndarray | None = None
    read_many: ReadMany | None = None
    inputs: Mapping[str, InputSpec] | None = None
    task: Task = cast("Task", None)  # `__post_init__` replaces None.

    def __post_init__(self) -> None:
        task = self.task or SingleLabel(self.class_names)
        object.__setattr__(self, "task", task.renamed(self.class_names))
        self.task.check(self.labels)
        shape = self.labels.shape[:1]
        if len(self.names) != len(self.labels):
            raise ValueError(f"got {len(self.names)} names for {len(self.labels)} labels")
        for name in ("strata", "held_out", "test", "together", "groups", "sizes"):
            values = getattr(self, name)
            if values is not None and values.shape != shape:
                raise ValueError(f"{name} must have shape {shape} like the labels, got {values.shape}")
        if self.weights is not None and (self.weights.shape != shape or np.any(self.weights <= 0)):
            raise ValueError(f"weights must be above 0 and have shape {shape} like the labels")
        if self.groups is not None and self.groups.dtype.kind != "U":
            raise ValueError(f"groups must be strings, got {self.groups.dtype}")

    def __len__(self) -> int:
        return len(self.labels)

    def image(self, index: int) -> np.ndarray:
        """Reads an image as RGB.

        Args:
            index: Position of the image.

        Returns:
            uint8 pixels `(height, width, 3)`.

        Raises:
            BadImageError: If reading or decoding fails, or the array is no 8-bit gray or RGB image.
            NotImagesError: If the examples are not images.
        """
        return to_rgb_array(self.pil_image(index))

    def pil_image(self, index: int) -> Image.Image:
        """Reads an image as a Pillow image of mode L if it is gray, otherwise RGB; raises as `image` does."""
        return to_pil(self._content(index), self.names[index])

    def summary(self, index: int) -> ImageSummary:
        """Returns size, format and thumbnail of an image, faster than `image`; raises as `image` does."""
        return summarize_image(self._content(index), self.names[index])

    def arrays(self, index: int) -> Mapping[str, np.ndarray]:
        """Reads the arrays of an example that is not an image.

        Args:
            index: Position of the example.

        Returns:
            The arrays by name, with the shapes and dtypes of `inputs`.

        Raises:
            BadImageError: If reading fails, or an array has another shape or dtype.
            ValueError: If the examples are images.
        """
        return _arrays(self._read(index))

    def input_batch(self, indices: Sequence[int] | np.ndarray) -> dict[str, np.ndarray]:
        """Reads the arrays of several examples that are not images.

        Args:
            indices: Positions of the examples.

        Returns:
            Arrays by name, examples on axis 0: the entry `inputs` of a batch.

        Raises:
            BadImageError: As `arrays`.
            ValueError: If the examples are images.
        """
        return stack_inputs([self.arrays(int(index)) for index in indices])

    def check_images(self, purpose: str) -> None:
        """Raises `NotImagesError` if the examples are not images.

        Args:
            purpose: The work that needs images, for the message, such as "a scan".
        """
        if self.inputs is not None:
            names = ", ".join(map(repr, self.inputs))
            raise NotImagesError(f"{purpose} needs images, but the examples are arrays ({names})")

    def contents(self, indices: Sequence[int] | np.ndarray) -> list[Content | BadImageError]:
        """Reads several examples, which is faster than one after the other for some sources.

        Args:
            indices: Positions of the examples.

        Returns:
            The encoded images, pixels or arrays; or the error of an example that cannot be read.
        """
        positions = [int(index) for index in indices]
        found = read_each(self.read, positions) if self.read_many is None else self.read_many(positions)
        return [
            _unreadable(self.names[index], each) if isinstance(each, OSError) else each
            for index, each in zip(positions, found, strict=True)
        ]

    def opened(self, index: int, content: Content | BadImageError) -> SourceImage | Mapping[str, np.ndarray]:
        """Returns one of the `contents` as an image that can be cropped, or as the arrays of an example.

        Args:
            index: Position of the example.
            content: The example, as `contents` returns it.

        Raises:
            BadImageError: As `image`.
        """
        if isinstance(content, BadImageError):
            raise content
        if self.inputs is not None:
            return _arrays(content)
        return SourceImage(self._checked_content(index, content), self.names[index])

    def _read(self, index: int) -> Content:
        """Returns the content of an example."""
        try:
            return read_again(self.read, index)
        except OSError as error:
            raise _unreadable(self.names[index], error) from error

    def _content(self, index: int) -> bytes | np.ndarray:
        """Returns the encoded file, or uint8 pixels `(height, width)` or `(height, width, 3)`."""
        self.check_images("reading pixels")
        return self._checked_content(index, self._read(index))

    def _checked_content(self, index: int, content: Content) -> bytes | np.ndarray:
        name = self.names[index]
        if isinstance(content, (bytes, bytearray, memoryview)):
            return bytes(content)
        if not isinstance(content, np.ndarray):
            raise BadImageError(
                f"{name}: expected a file or an array of pixels, got {type(content).__name__}"
            )
        if content.dtype != np.uint8 or content.ndim not in (2, 3):
            raise BadImageError(
                f"{name}: expected uint8 pixels, got {content.dtype} of shape {content.shape}"
            )
        if content.ndim == 3 and content.shape[-1] not in (1, 3):
            raise BadImageError(f"{name}: expected 1 or 3 channels last, got shape {content.shape}")
        if content.size == 0:
            raise BadImageError(f"{name}: the image has no pixels, its shape is {content.shape}")
        return content[..., 0] if content.ndim == 3 and content.shape[-1] == 1 else content

    def subset(self, indices: Sequence[int] | np.ndarray) -> "ImageDataset":
        """Returns the dataset of some images, with a fingerprint of its own.

        Args:
            indices: int `(m,)`, positions of the images, in the order of the new dataset.

        Raises:
            IndexError: If an index is out of range.
        """
        chosen = _checked(indices, len(self))
        digest = hashlib.sha256(self.fingerprint.encode() + b"\0")
        for first in range(0, len(chosen), _BLOCK):
            digest.update(chosen[first : first + _BLOCK].astype("<i8").tobytes())

        def of_chosen(values: np.ndarray | None) -> np.ndarray | None:
            return None if values is None else values[chosen]

        return dataclasses.replace(
            self,
            read=reader_of(self.read, chosen),
            read_many=None if self.read_many is None else reader_of(self.read_many, chosen),
            labels=self.labels[chosen],
            names=names_of(self.names, chosen),
            fingerprint=digest.hexdigest(),
            strata=of_chosen(self.strata),
            weights=of_chosen(self.weights),
            held_out=of_chosen(self.held_out),
            test=of_chosen(self.test),
            together=of_chosen(self.together),
            groups=of_chosen(self.groups),
            sizes=of_chosen(self.sizes),
            rows=of_chosen(self.rows),
        )

    def part(self, indices: Sequence[int] | np.ndarray) -> "ImageDataset":
        """Returns a subset with this dataset as its `parent`.

        The parent of a part of a part is the parent of that part.

        Args:
            indices: As for `subset`.
        """
        part = self.subset(indices)
        if self.parent is not None:
            return part
        return dataclasses.replace(part, parent=self, rows=_checked(indices, len(self)))

    def in_pieces(self) -> "ImageDataset":
        """Returns the dataset for reading neighbours one after the other or in blocks.

        Sources in object storage then read large pieces of objects, and keep them in their cache.
        """
        return (
            self if self.read_many is None else dataclasses.replace(self, read_many=in_pieces(self.read_many))
        )

    def requests(self, positions: Sequence[int] | np.ndarray) -> list[ByteRange] | None:
        """Returns the requests to object storage that reading some images at once sends.

        Args:
            positions: The positions of the images.

        Returns:
            The bytes of each request if the cache is empty; None if the images are not in object storage.
        """
        rows = np.asarray(positions, np.int64).tolist()
        return None if self.read_many is None else requests_of(self.read_many, rows)

    @property
    def cache_bytes(self) -> int:
        """The largest size of the cache of images from object storage, in bytes; 0 for other images."""
        return 0 if self.read_many is None else cache_bytes_of(self.read_many)

    def for_reading(self) -> "ImageDataset":
        """Returns the dataset without what only a split needs, as a process that reads images receives it."""
        unused = ("strata", "held_out", "test", "together", "groups", "sizes", "parent", "rows")
        return dataclasses.replace(self, notes=(), **dict.fromkeys(unused))

    def labels_and_weights(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the entries of a batch other than the pixels.

        Args:
            indices: int `(batch,)`, positions of the images.

        Returns:
            `label`, as `labels`; `index`, int32 `(batch,)`; and `weight`, float32 `(batch,)`, if the dataset
            has weights. The mean of `weight` over the dataset is 1.
        """
        entries = {"label": self.labels[indices], "index": indices.astype(np.int32)}
        if self._relative_weights is not None:
            entries["weight"] = self._relative_weights[indices]
        return entries

    @functools.cached_property
    def _relative_weights(self) -> np.ndarray | None:
        return None if self.weights is None else (self.weights / self.weights.mean()).astype(np.float32)

    @property
    def strata_of_labels(self) -> np.ndarray:
        """The stratum of each image by its label alone, int `(n,)`: its class, if there are classes."""
        return self.task.strata(self.labels)

    def counts(self) -> dict[str, int]:
        """Returns the number of images of each class or label, by name; for regression, of each quantity."""
        return dict(zip(self.class_names, self.task.counts(self.labels).tolist(), strict=True))


def summarize_images(
    dataset: ImageDataset, indices: Sequence[int] | np.ndarray
) -> Iterator[ImageSummary | BadImageError]:
    """Returns the summary of each image, or the error of a bad one, in order. It works in threads.

    Args:
        dataset: The images.
        indices: int `(m,)`, positions of the images.
    """

    def summary(index: int) -> ImageSummary | BadImageError:
        try:
            return dataset.summary(index)
        except BadImageError as error:
            return error

    return thread_map(summary, map(int, indices))


def drop_images(dataset: ImageDataset, indices: Sequence[int] | np.ndarray) -> ImageDataset:
    """Returns the dataset without some images, in unchanged order.

    Args:
        dataset: The dataset.
        indices: int `(m,)`, positions of the images to drop.

    Raises:
        IndexError: If an index is out of range.
    """
    dropped = _checked(indices, len(dataset))
    kept = np.ones(len(dataset), bool)
    kept[dropped] = False
    return dataset.subset(positions(kept))


def _arrays(content: Content) -> Mapping[str, np.ndarray]:
    if not isinstance(content, Mapping):
        raise ValueError("the examples of this dataset are images; `image` reads them")
    return content


def _unreadable(name: str, error: OSError) -> BadImageError:
    return BadImageError(f"{name}: cannot be read ({error})")


def _checked(indices: Sequence[int] | np.ndarray, size: int) -> np.ndarray:
    """Returns indices as an array, int32 if they are given so, without a copy if possible."""
    checked = np.asarray(indices)
    if checked.dtype != np.int32:
        checked = checked.astype(np.int64, copy=False)
    if len(checked) and (checked.min() < 0 or checked.max() >= size):
        raise IndexError(f"indices must be in 0..{size - 1}, got {checked.min()}..{checked.max()}")
    return checked
