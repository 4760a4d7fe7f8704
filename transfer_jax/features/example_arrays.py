"""The arrays of examples of any data, read in batches and checked."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import psutil

from transfer_jax.data.example_source import open_source
from transfer_jax.data.pipeline import listed_batches
from transfer_jax.freezing.trees import leaves_by_path

_HASHED_AT_ONCE = 64
"""Examples of a batch that is read to hash it."""
_MEMORY = 0.1
"""Largest fraction of the free memory for examples that are kept after they are hashed."""


class ExampleArrays:
    """The arrays of examples that a prefix needs, and those that are kept beside the features.

    Args:
        data: The examples: a tree of arrays with the examples on axis 0, or anything with `__len__` and
            `__getitem__` whose items are trees of arrays of one example. A list of numbers in an item is an
            array.
        needed: Shape and dtype of the arrays that the prefix needs, by path.
        inputs: Paths of the arrays that the suffix needs.
        keep: Paths of the arrays to keep. None keeps those that the suffix needs, and all arrays of numbers
            that the prefix does not need.

    Attributes:
        kept: Shape and dtype of the arrays that are kept, by path.

    Raises:
        ValueError: If the data have no length or no examples, or the first example does not have the arrays.
    """

    kept: dict[str, jax.ShapeDtypeStruct]

    def __init__(
        self,
        data: Any,
        needed: Mapping[str, jax.ShapeDtypeStruct],
        inputs: Sequence[str] = (),
        keep: Sequence[str] | str | None = None,
    ) -> None:
        self._columns, self._needed = _columns_of(data), needed
        if self._columns is None:
            self._source = open_source(data, "data")
            self._length = len(self._source)
            first = self._leaves(0)
        else:
            self._length = len(next(iter(self._columns.values())))
            first = {path: np.asarray(column[0]) for path, column in self._columns.items()}
        if isinstance(keep, str):
            keep = [keep]
        elif keep is None:
            keep = [
                path
                for path, leaf in first.items()
                if path in inputs or (path not in needed and _is_numeric(leaf))
            ]
        self._paths = [*needed, *(path for path in keep if path not in needed)]
        for path in self._paths:
            _check_there(first, path, 0)
            if not _is_numeric(first[path]):
                raise ValueError(f"{path!r} is no array of numbers: {first[path]!r}; leave it out of `keep`")
        self._specs = {path: (first[path].shape, first[path].dtype) for path in self._paths}
        for path, expected in needed.items():
            _check_expected(path, first[path], expected)
        self.kept = {path: jax.ShapeDtypeStruct(*self._specs[path]) for path in keep}

    def __len__(self) -> int:
        return self._length

    def read(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the arrays of some examples by path, with the examples on axis 0.

        Args:
            rows: int `(n,)`, positions of the examples, one after the other.

        Raises:
            ValueError: If the arrays of an example differ in shape or dtype from those of the first one.
        """
        if self._columns is not None:
            chosen = slice(int(rows[0]), int(rows[-1]) + 1)
            return {path: np.asarray(self._columns[path][chosen]) for path in self._paths}
        examples = [self._checked(int(row)) for row in rows]
        return {path: np.stack([each[path] for each in examples]) for path in self._paths}

    def fingerprint(self, threads: int, advance: Callable[[int], None]) -> str:
        """Reads all examples and returns a hash of their arrays.

        If they fit into a tenth of the free memory, they stay there, so that `read` does not read them again.

        Args:
            threads: Threads that read.
            advance: Called with the number of examples that are hashed.
        """
        hashes = {path: hashlib.sha256() for path in self._paths}
        lists = [
            np.arange(first, min(first + _HASHED_AT_ONCE, len(self)))
            for first in range(0, len(self), _HASHED_AT_ONCE)
        ]
        whole = self._space()
        for rows, batch in zip(lists, listed_batches(self.read, lists, threads=threads), strict=True):
            for path, array in batch.items():
                hashes[path].update(np.ascontiguousarray(array).view(np.uint8).data)
                if whole is not None:
                    whole[path][rows] = array
            advance(len(rows))
        self._columns = self._columns or whole
        lines = [
            f"{path} {self._specs[path][1]} {self._specs[path][0]} {hashes[path].hexdigest()}"
            for path in sorted(hashes)
        ]
        return hashlib.sha256("\n".join([str(len(self)), *lines]).encode()).hexdigest()

    def _space(self) -> dict[str, np.ndarray] | None:
        """Returns empty arrays for all examples; None if these are too large, or arrays already."""
        size = len(self) * sum(np.dtype((dtype, shape)).itemsize for shape, dtype in self._specs.values())
        if self._columns is not None or size > _MEMORY * psutil.virtual_memory().available:
            return None
        return {path: np.empty((len(self), *shape), dtype) for path, (shape, dtype) in self._specs.items()}

    def _leaves(self, row: int) -> dict[str, np.ndarray]:
        """Returns all arrays of an example by path."""
        try:
            item = self._source[row]
        except Exception as error:  # The data are the code of users.
            error.add_note(f"while reading example {row}")
            raise
        if item is None:
            raise ValueError(
                f"example {row} is None, as are those that a grain `filter` leaves out; remove it"
            )
        return leaves_by_path(jax.tree.map(_as_array, item, is_leaf=_is_array))

    def _checked(self, row: int) -> dict[str, np.ndarray]:
        leaves = self._leaves(row)
        for path, (shape, dtype) in self._specs.items():
            _check_there(leaves, path, row)
            leaf = leaves[path]
            if (leaf.shape, leaf.dtype) != (shape, dtype):
                advice = "pad or convert it" if path in self._needed else "pad it, or leave it out of `keep`"
                raise ValueError(
                    f"example {row}: {path!r} is {leaf.dtype} {leaf.shape}, but in example 0 it is {dtype} "
                    f"{shape}; {advice}"
                )
        return leaves


def _columns_of(data: Any) -> dict[str, Any] | None:
    """Returns the arrays of a tree with the examples on axis 0; None for data of other kinds."""
    is_sequence = hasattr(data, "__len__") or hasattr(data, "__iter__")
    is_tree = isinstance(data, Mapping | tuple) or _has_shape(data) or not is_sequence
    leaves = leaves_by_path(data) if is_tree else {}
    if not leaves or not all(_has_shape(leaf) for leaf in leaves.values()):
        return None
    shapes = {path: tuple(leaf.shape) for path, leaf in leaves.items()}
    sizes = {path: shape[0] if shape else None for path, shape in shapes.items()}
    if len({*sizes.values()}) > 1 or None in sizes.values():
        raise ValueError(f"all arrays of data must have the examples on axis 0; their shapes are {shapes}")
    if 0 in sizes.values():
        raise ValueError("data has no examples")
    return {path: np.asarray(leaf) if isinstance(leaf, jax.Array) else leaf for path, leaf in leaves.items()}


def _has_shape(value: Any) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype")


def _is_array(value: Any) -> bool:
    """Returns True for arrays, and for lists of numbers, also nested ones."""
    if isinstance(value, list):
        return bool(value) and (isinstance(value[0], int | float) or _is_array(value[0]))
    return False


def _as_array(value: Any) -> np.ndarray:
    try:
        return np.asarray(value)
    except ValueError:  # Lists of several lengths.
        return np.empty((), object)


def _is_numeric(array: np.ndarray) -> bool:
    return array.dtype.kind in "biufc" or jax.numpy.issubdtype(array.dtype, jax.numpy.number)


def _check_there(leaves: Mapping[str, Any], path: str, row: int) -> None:
    if path not in leaves:
        found = ", ".join(map(repr, leaves)) or "nothing"
        raise ValueError(f"example {row} has no array {path!r}; it has {found}")


def _check_expected(path: str, array: np.ndarray, expected: jax.ShapeDtypeStruct) -> None:
    """Raises `ValueError` if an array is not as the prefix expects it."""
    dtype = jax.dtypes.canonicalize_dtype(array.dtype)
    if array.shape != expected.shape or dtype != expected.dtype:
        raise ValueError(
            f"{path!r} of an example is {dtype} {array.shape}, but the split was made for {expected.dtype} "
            f"{expected.shape}; convert the examples, or make the split with a batch of them"
        )
