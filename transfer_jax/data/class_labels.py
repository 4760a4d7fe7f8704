"""Labels in Python: class names or numbers in lists, arrays, tensors and columns of tables."""

import enum
import operator
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from transfer_jax.data.image_files import abridged

_MANY = 20
"""Numbers of classes up to which numeric labels are classes in any case."""
_MISSING_TYPES = ("NAType", "NaTType")
"""Types of missing values in pandas, which is not imported."""


def class_labels(
    values: Any, class_names: Sequence[str] | Mapping[Any, Any] | None = None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Returns labels as positions in the list of classes, and that list.

    Example:
        >>> class_labels(["cat", "dog", "cat"])
        (array([0, 1, 0], dtype=int32), ('cat', 'dog'))

    Args:
        values: `n` strings, whole numbers or booleans: a list, an array, a column of a table, a tensor.
            Floating-point numbers must be whole.
        class_names: The classes in the order of their positions, or a mapping from numbers to names or from
            names to numbers. None takes the sorted distinct values.

    Returns:
        int32 `(n,)`, and the names of the classes.

    Raises:
        ValueError: If a label is missing, no class, or of another kind than the others; or if numbers look
            like measurements; or if `class_names` is invalid.
    """
    labels = _column(values)
    if class_names is None:
        return _of_distinct(labels)
    names, numbers = _names(class_names)
    if labels.dtype.kind == "U":
        return _positions(labels, names, names), names
    labels = labels.astype(np.int64)
    if numbers is not None:
        return _positions(labels, numbers, names), names
    if len(labels) and not 0 <= labels.min() <= labels.max() < len(names):
        first, last = int(labels.min()), int(labels.max())
        from_one = first == 1 and last == len(names)
        hint = "; subtract 1, as the first class is 0" if from_one else ""
        raise ValueError(
            f"labels must be in 0..{len(names) - 1} for the {len(names)} classes {abridged(names)}, "
            f"got {first}..{last}{hint}"
        )
    return labels.astype(np.int32), names


def _of_distinct(labels: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    distinct, positions = np.unique(labels, return_inverse=True)
    if labels.dtype.kind != "U" and len(distinct) > max(_MANY, len(labels) // 2):
        raise ValueError(
            f"labels are {len(distinct):,} different numbers for {len(labels):,} images, "
            f"{distinct[0]} to {distinct[-1]}: they look like measurements or ids. For measurements pass "
            "task='regression'; if they are classes, pass class_names or convert them to strings"
        )
    return positions.astype(np.int32).reshape(len(labels)), tuple(map(str, distinct.tolist()))


def _positions(labels: np.ndarray, known: tuple, names: tuple[str, ...]) -> np.ndarray:
    """Returns the position of each label among the known ones."""
    index = {label: position for position, label in enumerate(known)}
    if unknown := sorted({*labels.tolist()} - index.keys()):
        raise ValueError(
            f"labels {abridged(unknown)} are not among the {len(names)} classes {abridged(known)}"
        )
    return np.fromiter((index[label] for label in labels.tolist()), np.int32, len(labels))


def _names(given: Any) -> tuple[tuple[str, ...], tuple[int, ...] | None]:
    """Returns the classes, and the number of each if these are not its position."""
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise ValueError(f"class_names must be a list of names, got {given!r}")
    if isinstance(given, set | frozenset):
        raise ValueError(f"class_names must be a list, as the order of the set {given!r} is arbitrary")
    numbers = None
    if isinstance(given, Mapping):
        pairs: list[tuple[Any, Any]] = [(plain(key), plain(value)) for key, value in given.items()]
        if all(isinstance(value, int) for _, value in pairs):
            pairs = [(value, key) for key, value in pairs]
        elif all(isinstance(key, str) and key.isdecimal() for key, _ in pairs):  # As in JSON.
            pairs = [(int(key), value) for key, value in pairs]
        if not all(isinstance(number, int) for number, _ in pairs):
            raise ValueError(f"class_names must map whole numbers to names, or names to them, got {given!r}")
        pairs.sort(key=operator.itemgetter(0))
        numbers, given = tuple(number for number, _ in pairs), [name for _, name in pairs]
    names = tuple(str(plain(name)) for name in given)
    if len(set(names)) < len(names):
        twice = sorted(name for name, count in Counter(names).items() if count > 1)
        raise ValueError(f"class_names must be different, got {abridged(twice)} more than once")
    if numbers is not None and len(set(numbers)) < len(numbers):
        raise ValueError(f"class_names must have different numbers, got {abridged(numbers)}")
    return names, numbers


def _column(values: Any) -> np.ndarray:
    """Returns labels as an array `(n,)` of strings, whole numbers or booleans."""
    if isinstance(values, str | bytes | Mapping | set | frozenset):
        raise ValueError(
            f"labels must be a list or an array with a label for each image, got {type(values).__name__}"
        )
    if np.ma.is_masked(values):
        raise ValueError(_missing(np.ma.getmaskarray(values).reshape(-1)))
    array = np.asarray(values) if hasattr(values, "__array__") else _objects(values)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise ValueError(
            f"labels must have one label for each image, shape (n,), got shape {array.shape}; "
            "if several labels of an image may be 1, pass task='multi_label'; if they are one-hot, "
            "labels.argmax(axis=1)"
        )
    if array.dtype.kind in "OSTV":
        array = _uniform([plain(value) for value in array.tolist()])
    if array.dtype.kind == "f":
        array = _whole(array)
    if array.dtype.kind not in "biuU" and array.dtype != object:
        raise ValueError(f"labels must be whole numbers, booleans or strings, got {array.dtype}")
    if array.dtype.kind == "U" and np.any(empty := array == ""):
        raise ValueError(_missing(empty))
    return array


def _objects(values: Any) -> np.ndarray:
    """Returns the elements of a list as they are; NumPy would convert all of them to one type."""
    if not isinstance(values, Iterable):
        raise ValueError(f"labels must be a list or an array with a label for each image, got {values!r}")
    items = list(values)
    array = np.empty(len(items), dtype=object)
    for position, item in enumerate(items):
        if isinstance(item, list | tuple) or getattr(item, "ndim", 0):
            raise ValueError(
                f"labels must have one label for each image, but label {position} is {item!r}; "
                "for several labels pass task='multi_label'; if they are one-hot, np.argmax(labels, axis=1)"
            )
        array[position] = item
    return array


def _uniform(items: list) -> np.ndarray:
    """Returns strings, whole numbers or numbers as an array of their type."""
    missing = np.array([_is_missing(item) for item in items], dtype=bool)
    if np.any(missing):
        raise ValueError(_missing(missing))
    first: dict[type, Any] = {}
    for item in items:
        first.setdefault(type(item), item)
    if first.keys() <= {str}:
        return np.array(items, dtype=np.str_)
    if first.keys() <= {bool, int, float}:
        return np.array(items)
    if first.keys() <= {bool, int, float, str}:
        number = next(value for kind, value in first.items() if kind is not str)
        raise ValueError(
            f"labels must be all strings or all whole numbers, got both {first[str]!r} and {number!r}"
        )
    kind, value = next((kind, value) for kind, value in first.items() if kind not in (bool, int, float, str))
    raise ValueError(
        f"labels must be whole numbers, booleans or strings, got {value!r} of type {kind.__name__}"
    )


def _whole(array: np.ndarray) -> np.ndarray:
    """Returns whole floating-point numbers as integers."""
    if np.any(missing := np.isnan(array)):
        raise ValueError(_missing(missing))
    fractions = array[array != np.floor(array)] if np.all(np.isfinite(array)) else array
    if len(fractions):
        raise ValueError(
            f"labels must be classes, but {len(fractions):,} of {len(array):,} are numbers such as "
            f"{fractions[0]}. For measurements pass task='regression'; otherwise whole numbers or names"
        )
    return array.astype(np.int64)


def plain(value: Any) -> Any:
    """Returns a scalar of NumPy, JAX or torch as a Python value, and bytes as text."""
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise ValueError(f"labels must be UTF-8 text, got {value!r}") from None
    if isinstance(value, str):
        return str(value)
    if isinstance(value, enum.IntEnum):
        return int(value)
    return value.item() if getattr(value, "ndim", None) == 0 and hasattr(value, "item") else value


def _is_missing(value: Any) -> bool:
    if isinstance(value, float):
        return value != value
    return value is None or type(value).__name__ in _MISSING_TYPES


def _missing(missing: np.ndarray) -> str:
    return (
        f"labels are missing for {np.count_nonzero(missing):,} of {len(missing):,} images "
        f"(first at position {int(np.argmax(missing))}); leave these images out"
    )
