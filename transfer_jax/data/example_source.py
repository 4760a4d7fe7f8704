"""Sources of examples: anything with `__len__` and `__getitem__`, and the labels that it knows."""

import itertools
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from transfer_jax.data.dataset import ImageDataset
from transfer_jax.data.example_fields import Field, Key

_INFINITE = sys.maxsize // 4
"""Smallest length of a source that counts as endless: that of a repeated grain `MapDataset`."""


class Columns:
    """Examples in columns: a dictionary of arrays or lists with one entry for each example.

    Args:
        columns: The columns by key, all of the same length.
    """

    def __init__(self, columns: Mapping[Key, Any]) -> None:
        self.columns = dict(columns)
        self._length = len(next(iter(self.columns.values())))

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> dict[Key, Any]:
        return {key: column[index] for key, column in self.columns.items()}


def open_source(source: Any, name: str) -> Any:
    """Returns a source with `__len__` and `__getitem__`; a dictionary or tuple of arrays becomes `Columns`.

    Args:
        source: The source.
        name: Its name in messages.

    Raises:
        ValueError: If it has no random access or no length, is endless or empty, or is a dictionary of other
            things than columns.
    """
    kind = type(source).__name__
    if isinstance(source, ImageDataset):
        raise ValueError(f"{name} is a dataset already; pass it to fit as dataset=")
    if isinstance(source, str | bytes):
        raise ValueError(f"{name} must be the examples themselves, got {source!r}; load_dataset reads a path")
    if hasattr(source, "iloc"):
        raise ValueError(f"{name} is a {kind}; pass its rows as table.to_dict('records')")
    if isinstance(source, Mapping):
        source = _columns(source, name)
    elif isinstance(source, tuple) and source and hasattr(source[0], "shape"):
        equal = len({_rows(column) for column in source}) == 1
        source = Columns(dict(enumerate(source))) if equal else source
    if not hasattr(source, "__getitem__") or isinstance(source, set | frozenset):
        loader = getattr(source, "dataset", None)
        hint = "pass its `dataset`" if hasattr(loader, "__getitem__") else "pass list(...) of its examples"
        raise ValueError(
            f"{name} must give any example by its position (`__getitem__`), which {kind} does not; "
            f"{hint}, or write them to files"
        )
    try:
        length = len(source)
    except (TypeError, NotImplementedError):
        raise ValueError(
            f"{name} must have a length (`__len__`), which {kind} does not; pass list(...) of its examples, "
            "or write them to files"
        ) from None
    if length >= _INFINITE:
        raise ValueError(f"{name} is endless (its length is {length}); pass it without `repeat`")
    if not length:
        raise ValueError(f"{name} has no examples")
    return source


def own_fingerprint(source: Any) -> str | None:
    """Returns the hash of its content that a source has, as Hugging Face datasets do; None if it has none."""
    for name in ("_fingerprint", "fingerprint"):
        found = getattr(source, name, None)
        if isinstance(found, str) and found:
            return found
    return None


def known_labels(source: Any, field: Field) -> Sequence[Any] | None:
    """Returns the labels of all examples without reading these; None if the source does not know them.

    Those are a column of a Hugging Face dataset or of `Columns`, the tensors of a `TensorDataset`, and
    `targets` or `labels` of other torch datasets, also through `Subset` and `ConcatDataset`.

    Args:
        source: The source.
        field: The key of the label.
    """
    if callable(field):
        return None
    if isinstance(source, Columns):
        return source.columns.get(field)
    if hasattr(source, "column_names") and hasattr(source, "with_format"):
        return source.with_format(None)[field][:] if field in source.column_names else None
    if isinstance(tensors := getattr(source, "tensors", None), tuple):
        return tensors[field] if isinstance(field, int) and -len(tensors) <= field < len(tensors) else None
    if hasattr(source, "dataset") and hasattr(source, "indices"):
        inner = known_labels(source.dataset, field)
        return None if inner is None else [inner[int(index)] for index in source.indices]
    if isinstance(parts := getattr(source, "datasets", None), list):
        labels = [each for part in parts if (each := known_labels(part, field)) is not None]
        return [*itertools.chain(*labels)] if len(labels) == len(parts) else None
    for name in ("targets", "labels"):
        found: Any = getattr(source, name, None)
        if hasattr(found, "__getitem__") and hasattr(found, "__len__") and len(found) == len(source):
            return found
    return None


def known_class_names(source: Any, field: Field) -> tuple[str, ...] | None:
    """Returns the names of the classes that a source knows; None if it knows none.

    Those are the names of a `ClassLabel` of Hugging Face datasets or tensorflow-datasets, and `classes` of a
    torch dataset, also through `Subset` and `ConcatDataset`.

    Args:
        source: The source.
        field: The key of the label.
    """
    if callable(field):
        return None
    features = getattr(source, "features", None)
    if features is None:
        features = getattr(getattr(source, "dataset_info", None), "features", None)
    if features is not None:
        names = getattr(features[field], "names", None) if field in features else None
        return None if names is None else tuple(names)
    inner = getattr(source, "datasets", None)
    inner = inner if isinstance(inner, list) else [source.dataset] if hasattr(source, "indices") else []
    if found := {known_class_names(part, field) for part in inner}:
        return found.pop() if len(found) == 1 else None
    names = getattr(source, "classes", None)
    if isinstance(names, list | tuple) and names and all(isinstance(name, str) for name in names):
        return tuple(names)
    return None


def _columns(source: Mapping, name: str) -> Columns:
    """Returns a dictionary of columns as a source."""
    lengths = {key: _rows(column) for key, column in source.items()}
    if not lengths or None in lengths.values() or len({*lengths.values()}) > 1:
        found = ", ".join(
            f"{key!r} ({type(column).__name__}{'' if lengths[key] is None else f' of {lengths[key]:,}'})"
            for key, column in source.items()
        )
        raise ValueError(
            f"{name} is a dictionary of {found or 'nothing'}; it must have arrays or lists of one length. "
            "Of several splits, pass one as the source and another one as validation"
        )
    return Columns(source)


def _rows(column: Any) -> int | None:
    """Returns the number of entries of an array or a list; None for other things."""
    if hasattr(column, "shape") and hasattr(column, "dtype"):
        return int(column.shape[0]) if len(column.shape) else None
    return len(column) if isinstance(column, list | tuple) else None
