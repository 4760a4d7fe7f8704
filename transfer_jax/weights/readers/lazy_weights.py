"""A mapping of names to arrays that reads each array on access."""

from collections.abc import Callable, Iterator, Mapping
from os import PathLike
from typing import NamedTuple

import numpy as np

from transfer_jax.weights.readers.entries import keys_below, unknown_entry


class ArrayInfo(NamedTuple):
    """The shape and the name of the dtype of an array, without its values."""

    shape: tuple[int, ...]
    dtype: str


class LazyWeights(Mapping[str, np.ndarray]):
    """The read-only weights of one file, in the order of the file.

    Every access reads the array again, so a file larger than memory can be read array by array. Keep an array
    that is needed twice. Arrays are C-contiguous, in native byte order and not writeable. If the file allows
    it, they are views of the mapped file, which must not be truncated while they are in use.

    Attributes:
        path: The path of the file, for messages.
        infos: The shape and dtype of each array by name.
        notes: Sentences about the choice of the file.
        metadata: What the file says of itself, such as the name of the network, by name.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        loaders: Mapping[str, Callable[[], np.ndarray]],
        infos: Mapping[str, ArrayInfo],
    ) -> None:
        """Stores the file's path and, for each name, a function that reads the array, and its info."""
        self.path = path
        self._loaders = dict(loaders)
        self.infos = dict(infos)
        self.notes: tuple[str, ...] = ()
        self.metadata: Mapping[str, str] = {}

    def below(self, entry: str | None) -> "LazyWeights":
        """Returns the arrays whose keys begin with an entry, such as `teacher`, by the rest of their keys.

        Args:
            entry: The entry; None returns all arrays.

        Raises:
            CheckpointError: If no key begins with the entry.
        """
        if entry is None:
            return self
        found = keys_below(self, entry)
        if not found:
            raise unknown_entry(entry, (), self)
        weights = LazyWeights(
            self.path,
            {key: self._loaders[full] for key, full in found.items()},
            {key: self.infos[full] for key, full in found.items()},
        )
        weights.notes, weights.metadata = self.notes, self.metadata
        return weights

    def __getitem__(self, name: str) -> np.ndarray:
        array = self._loaders[name]()
        array.flags.writeable = False
        return array

    def __contains__(self, name: object) -> bool:
        return name in self._loaders  # the inherited method would read the array

    def __iter__(self) -> Iterator[str]:
        return iter(self._loaders)

    def __len__(self) -> int:
        return len(self._loaders)

    def __repr__(self) -> str:
        return f"LazyWeights({str(self.path)!r}, {len(self)} arrays)"
