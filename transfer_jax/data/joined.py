"""Training images of one source with the validation images of another one."""

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from typing import Any, overload

import numpy as np

from transfer_jax.data.class_order import with_classes
from transfer_jax.data.contents import Content, Names, read_each
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
        read_many=_JoinedReadMany(parts, first) if any(part.read_many for part in parts) else None,
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


class _JoinedReadMany:
    """Function that reads several images of two sources, each source's at once."""

    def __init__(self, parts: tuple[ImageDataset, ImageDataset], first: int) -> None:
        self._reads, self._first = tuple((part.read, part.read_many) for part in parts), first

    def __call__(self, positions: Sequence[int]) -> list[Any]:
        found: dict[int, Any] = {}
        for (read, read_many), start, own in zip(
            self._reads,
            (0, self._first),
            ([p for p in positions if p < self._first], [p for p in positions if p >= self._first]),
            strict=True,
        ):
            if own:
                inside = [position - start for position in own]
                contents = read_each(read, inside) if read_many is None else read_many(inside)
                found.update(zip(own, contents, strict=True))
        return [found[position] for position in positions]


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
