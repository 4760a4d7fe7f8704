"""A mapping of names to arrays that reads an array when it is asked for."""

from collections.abc import Callable, Iterator, Mapping
from os import PathLike
from typing import NamedTuple

import numpy as np


class ArrayInfo(NamedTuple):
    """What an array is, without its values."""

    shape: tuple[int, ...]
    dtype: str


class LazyWeights(Mapping[str, np.ndarray]):
    """Read-only weights of one file; the order is the file's.

    Every access reads again, so that a file larger than memory can be walked tensor by tensor: keep the
    array where it is needed twice. Arrays are C-contiguous, in native byte order and not writeable; where
    the file allows it they are views of the mapped file, which must not be truncated while they live.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        loaders: Mapping[str, Callable[[], np.ndarray]],
        infos: Mapping[str, ArrayInfo],
    ) -> None:
        """Takes the file's path, for messages, and for each name what reads that array and what it is."""
        self.path = path
        self._loaders = dict(loaders)
        self.infos = dict(infos)

    def __getitem__(self, name: str) -> np.ndarray:
        array = self._loaders[name]()
        array.flags.writeable = False
        return array

    def __contains__(self, name: object) -> bool:
        return name in self._loaders  # the inherited one would read the array

    def __iter__(self) -> Iterator[str]:
        return iter(self._loaders)

    def __len__(self) -> int:
        return len(self._loaders)

    def __repr__(self) -> str:
        return f"LazyWeights({str(self.path)!r}, {len(self)} arrays)"
