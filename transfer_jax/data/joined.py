"""Training images of one source with the validation images of another one."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, overload

import numpy as np

from transfer_jax.data.class_order import with_classes
from transfer_jax.data.contents import (
    Content,
    Names,
    ReadMany,
    cache_bytes_of,
    in_pieces,
    read_each,
    requests_of,
)
from transfer_jax.data.dataset import ImageDataset
from transfer_jax.data.parts import has_own_test
from transfer_jax.data.split import has_own_split


def with_validation(dataset: ImageDataset, validation: ImageDataset, source: str) -> ImageDataset:
    """Returns the images of two datasets as one with a split of its own, the validation images last.

    The classes of the validation images are matched by name. If they have their own validation or test
    images, only these validation images are used, and no test images.

    Args:
        dataset: The training images, which may have test images.
        validation: The validation images.
        source: The name of their source, for messages.

    Raises:
        ValueError: If both have validation images, the validation images have other classes, or the examples
            are of different kinds.
    """
    if has_own_split(dataset):
        raise ValueError(
            f"the training images have validation images of their own; leave eval_images={source!r} out, or "
            "name training images alone"
        )
    validation = _alone(validation)
    if dataset.task.kind != validation.task.kind:
        raise ValueError(
            f"eval_images={source!r} has targets of the task {validation.task.kind}, and the training images "
            f"have those of {dataset.task.kind}"
        )
    if dataset.inputs != validation.inputs:
        raise ValueError(f"the examples of eval_images={source!r} differ from the training examples in kind")
    try:
        validation = with_classes(validation, dataset.class_names)
    except ValueError as error:
        raise ValueError(f"eval_images={source!r}: {error}") from None
    parts, first = (dataset, validation), len(dataset)
    digest = hashlib.sha256("\0".join(["joined", *(part.fingerprint for part in parts)]).encode())
    return ImageDataset(
        read=_JoinedRead((dataset.read, validation.read), first),
        read_many=_joined_read_many(parts, first),
        labels=np.concatenate([part.labels for part in parts]),
        names=_JoinedNames(dataset.names, validation.names),
        class_names=dataset.class_names,
        fingerprint=digest.hexdigest(),
        weights=_joined(parts, "weights", np.float32(1)),
        held_out=np.arange(first + len(validation)) >= first,
        test=_joined(parts, "test", False) if has_own_test(dataset) else None,
        groups=_joined(parts, "groups", ""),
        sizes=_joined(parts, "sizes", 0) if all(part.sizes is not None for part in parts) else None,
        notes=(*dataset.notes, *(f"validation images: {note}" for note in validation.notes)),
        inputs=dataset.inputs,
        task=dataset.task,
    )


def _alone(validation: ImageDataset) -> ImageDataset:
    """Returns the images of a source without its own training and test images, if it has such a split."""
    kept = np.ones(len(validation), bool)
    if has_own_split(validation) and validation.held_out is not None:
        kept = validation.held_out.copy()
    if has_own_test(validation) and validation.test is not None:
        kept &= ~validation.test
    chosen = validation if kept.all() else validation.subset(np.flatnonzero(kept))
    return dataclasses.replace(chosen, held_out=None, test=None)


def _joined(parts: Sequence[ImageDataset], name: str, missing: Any) -> np.ndarray | None:
    """Returns an attribute of all images, or None if no part has it."""
    found = [getattr(part, name) for part in parts]
    if all(each is None for each in found):
        return None
    whole = [
        np.full(len(part), missing) if each is None else each for part, each in zip(parts, found, strict=True)
    ]
    return np.concatenate(whole)


class _JoinedRead:
    """Function that reads an image of two sources by its position; it can be pickled if theirs can."""

    def __init__(self, reads: tuple[Callable[[int], Content], Callable[[int], Content]], first: int) -> None:
        self._reads, self._first = reads, first

    def __call__(self, index: int) -> Content:
        return self._reads[0](index) if index < self._first else self._reads[1](index - self._first)


def _joined_read_many(parts: Sequence[ImageDataset], first: int) -> "_JoinedReadMany | None":
    if not any(part.read_many for part in parts):
        return None
    reads = [part.read_many or functools.partial(read_each, part.read) for part in parts]
    return _JoinedReadMany(reads, first)


class _JoinedReadMany:
    """Function that reads several images of two sources, each source's at once."""

    def __init__(self, reads: Sequence[ReadMany], first: int) -> None:
        self._reads, self._first = tuple(reads), first

    def in_pieces(self) -> "_JoinedReadMany":
        """Returns the function for examples that are read with neighbours; see `contents.in_pieces`."""
        return _JoinedReadMany([in_pieces(read) for read in self._reads], self._first)

    @property
    def cache_bytes(self) -> int:
        """The largest size of the cache of either source, in bytes."""
        return max(map(cache_bytes_of, self._reads))

    def requests(self, positions: Sequence[int]) -> list[Any]:
        """Returns the requests to object storage that a call sends; see `contents.requests_of`."""
        found = [requests_of(read, inside) for read, _, inside in self._parts(positions)]
        return [each for requests in found for each in requests or ()]

    def __call__(self, positions: Sequence[int]) -> list[Any]:
        found: dict[int, Any] = {}
        for read, own, inside in self._parts(positions):
            found.update(zip(own, read(inside), strict=True))
        return [found[position] for position in positions]

    def _parts(self, positions: Sequence[int]) -> Iterator[tuple[ReadMany, list[int], list[int]]]:
        """Yields the function of each source, its positions among these, and the same in the source."""
        own = [p for p in positions if p < self._first], [p for p in positions if p >= self._first]
        for read, start, some in zip(self._reads, (0, self._first), own, strict=True):
            if some:
                yield read, some, [position - start for position in some]


class _JoinedNames(Sequence[str]):
    """The names of the images of two sources."""

    def __init__(self, names: Names, others: Names) -> None:
        self._names, self._others = names, others

    def __len__(self) -> int:
        return len(self._names) + len(self._others)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        index = range(len(self))[index]
        first = len(self._names)
        return self._names[index] if index < first else self._others[index - first]
