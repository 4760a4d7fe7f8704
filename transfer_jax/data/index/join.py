"""The columns of all parts, joined in the order of the parts."""

import functools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from transfer_jax.data.index.dataset_index import INDEX, mapped
from transfer_jax.data.index.part import PartsFile
from transfer_jax.data.index.place import IndexPlace
from transfer_jax.data.index.texts import TextColumn

Finish = Callable[["Joined"], tuple[Mapping[str, Any], Mapping[str, np.ndarray]]]
"""Function from the joined parts to further facts as JSON (`DatasetIndex.about`), and to further columns.

A fact `fingerprint` becomes that of the index. It raises an error for a source that is not usable.
"""


class Joined:
    """The joined columns, before the index is complete.

    Attributes:
        count: Number of examples.
        part_counts: int64 `(parts,)`, number of examples of each part.
        abouts: `PartIndex.about` of each part.
    """

    def __init__(self, folder: Path, counts: np.ndarray, abouts: list) -> None:
        self._folder, self.part_counts, self.abouts = folder, counts, abouts
        self.count = int(counts.sum())

    def column(self, name: str) -> np.ndarray:
        """Returns a column `(count, …)`, memory-mapped."""
        return mapped(self._folder / f"{name}.npy")

    def texts(self, name: str) -> TextColumn:
        """Returns strings, `count` of them."""
        return TextColumn(
            mapped(self._folder / f"{name}.bytes.npy"), mapped(self._folder / f"{name}.offsets.npy")
        )


def join_parts(
    place: IndexPlace,
    files: Sequence[Path],
    head: Mapping[str, Any],
    parts: Sequence[Any],
    contents: str,
    finish: Finish | None = None,
) -> None:
    """Writes the columns of an index, and then the file that declares it complete.

    Memory is that of one group of parts.

    Args:
        place: The place of the index.
        files: Groups of parts in the order of the parts.
        head: Version, kind and key.
        parts: The descriptions of the parts.
        contents: Name of the folder of the columns.
        finish: Function to further facts and columns; see `Finish`.

    Raises:
        ValueError: If the parts have different columns, or a file is damaged.
    """
    first = PartsFile(files[0])
    counts, abouts, kinds, lengths = [], [], {}, {}
    for path in files:
        group = PartsFile(path)
        if (group.columns, group.texts) != (first.columns, first.texts):
            raise ValueError(
                f"parts have different columns: {first.columns + first.texts}, {group.columns + group.texts}"
            )
        counts.append(group.counts)
        abouts += group.about
        for name in group.columns:
            kinds.setdefault(name, []).append(group.column(name)[:0])
        for name in group.texts:
            lengths[name] = lengths.get(name, 0) + int(group.text_lengths(name).sum())
    count = int(np.concatenate(counts).sum())
    sizes: dict[str, int] = {}

    def save(name: str, write: Callable[[BinaryIO], object]) -> None:
        def to_path(path: Path) -> None:
            with path.open("wb") as file:
                write(file)
            sizes[name] = path.stat().st_size

        place.save(f"{contents}/{name}", to_path)

    for name, empty in kinds.items():
        joined = np.concatenate(empty)
        shape = (count, *joined.shape[1:])
        arrays = (PartsFile(path).column(name) for path in files)
        save(f"{name}.npy", functools.partial(_write, joined.dtype, shape, arrays))
    for name, total in lengths.items():
        content = (PartsFile(path).text_bytes(name) for path in files)
        save(f"{name}.bytes.npy", functools.partial(_write, np.uint8, (total,), content))
        offsets = _offsets(PartsFile(path).text_lengths(name) for path in files)
        dtype = np.uint32 if total < 1 << 32 else np.int64
        save(f"{name}.offsets.npy", functools.partial(_write, dtype, (count + 1,), offsets))
    joined = Joined(place.folder / contents, np.concatenate(counts), abouts)
    about, columns = finish(joined) if finish is not None else ({}, {})
    for name, values in columns.items():
        save(f"{name}.npy", functools.partial(_write, values.dtype, values.shape, [values]))
    described = zip(parts, joined.part_counts.tolist(), abouts, strict=True)
    values = {
        **head,
        "contents": contents,
        "count": count,
        "columns": [*first.columns, *columns],
        "finished": [*columns],
        "texts": first.texts,
        "parts": [*described],
        "about": {name: value for name, value in about.items() if name != "fingerprint"},
        "fingerprint": about.get("fingerprint", contents),
        "files": sizes,
    }
    place.save(INDEX, lambda path: path.write_text(json.dumps(values), encoding="utf-8"))


def _write(dtype: Any, shape: tuple[int, ...], arrays: Iterable[np.ndarray], file: BinaryIO) -> None:
    """Writes an `.npy` file from consecutive parts of an array."""
    dtype = np.dtype(dtype)
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_2_0(file, header)
    rows = 0
    for array in arrays:
        file.write(np.ascontiguousarray(array, dtype=dtype).data)
        rows += len(array)
    if rows != shape[0]:
        raise ValueError(f"a column has {rows:,} values for {shape[0]:,} examples")


def _offsets(lengths: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Yields where each string begins, and at last the end of all."""
    start = 0
    yield np.zeros(1, np.int64)
    for each in lengths:
        ends = start + np.cumsum(each)
        yield ends
        start = int(ends[-1]) if len(ends) else start
