"""The index of a source, memory-mapped."""

import contextlib
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from transfer_jax.data.index.place import IndexPlace
from transfer_jax.data.index.texts import TextColumn

VERSION = 1
"""Version of the format; an index of another version is made again."""
_MAPPED = 1 << 16
"""Number of bytes up to which a column is read instead of mapped; empty ones are not mappable."""
INDEX = "index.json"
"""The file that declares an index complete."""


class IndexInvalidError(ValueError):
    """An index is missing, damaged, of another version or of another source; the text says which."""


class DatasetIndex:
    """Columns and facts of the examples of a source. Arrays are memory-mapped and read-only.

    Attributes:
        place: Its folder.
        kind: The kind of source, such as `tfds`.
        key: All that the columns of every part depend on, as JSON.
        count: Number of examples.
        parts: The descriptions of the parts, in their order.
        part_counts: int64 `(parts,)`, the number of examples of each part.
        part_abouts: `PartIndex.about` of each part.
        about: Further facts of the source as JSON.
        fingerprint: Hash of the source: of what it says of itself, or of the columns.
        columns: Names of the arrays.
        text_names: Names of the strings.
    """

    def __init__(self, place: IndexPlace, values: dict[str, Any]) -> None:
        self.place = place
        self.values = values
        self.kind: str = values["kind"]
        self.key: Any = values["key"]
        self.count: int = values["count"]
        self.parts: list = [part for part, _, _ in values["parts"]]
        self.part_counts = np.array([count for _, count, _ in values["parts"]], np.int64)
        self.part_abouts: list = [about for _, _, about in values["parts"]]
        self.about: dict[str, Any] = values["about"]
        self.fingerprint: str = values["fingerprint"]
        self.columns: tuple[str, ...] = tuple(values["columns"])
        self.text_names: tuple[str, ...] = tuple(values["texts"])
        self.contents: str = values["contents"]
        self._arrays: dict[str, np.ndarray] = {}

    def __len__(self) -> int:
        return self.count

    def __reduce__(self) -> tuple:
        return DatasetIndex, (self.place, self.values)

    @property
    def part_starts(self) -> np.ndarray:
        """int64 `(parts + 1,)`, the position of the first example of each part, and the count."""
        return np.concatenate(([0], np.cumsum(self.part_counts)))

    def column(self, name: str) -> np.ndarray:
        """Returns an array `(count, …)`.

        Raises:
            KeyError: If the index has no such column.
        """
        if name not in self.columns:
            raise KeyError(f"the index {self.place.folder} has no column {name!r}, only {self.columns}")
        return self._mapped(f"{name}.npy")

    def get(self, name: str) -> np.ndarray | None:
        """Returns an array, or None if there is none of this name."""
        return self.column(name) if name in self.columns else None

    def texts(self, name: str) -> TextColumn:
        """Returns strings, `count` of them.

        Raises:
            KeyError: If the index has no such texts.
        """
        if name not in self.text_names:
            raise KeyError(f"the index {self.place.folder} has no texts {name!r}, only {self.text_names}")
        return _IndexTexts(self, name)

    def text_arrays(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Returns the bytes of strings, and where each begins."""
        return self._mapped(f"{name}.bytes.npy"), self._mapped(f"{name}.offsets.npy")

    def check_files(self) -> None:
        """Checks that all files have their sizes, and downloads those of a bucket.

        Raises:
            IndexInvalidError: If a file is missing or truncated.
        """
        for name, size in self.values["files"].items():
            try:
                found = self.place.load(f"{self.contents}/{name}", size).stat().st_size
            except FileNotFoundError:
                raise IndexInvalidError(f"its file {name} is missing") from None
            if found != size:
                raise IndexInvalidError(f"its file {name} has {found:,} bytes instead of {size:,}")

    def _mapped(self, name: str) -> np.ndarray:
        if name not in self._arrays:  # Readers ask for columns of each example.
            self._arrays[name] = mapped(self.place.folder / self.contents / name)
        return self._arrays[name]


class _IndexTexts(TextColumn):
    """Strings of an index; another process that receives them maps them itself."""

    def __init__(self, index: DatasetIndex, name: str) -> None:
        super().__init__(*index.text_arrays(name))
        self._index, self._name = index, name

    def __reduce__(self) -> tuple:
        return _IndexTexts, (self._index, self._name)


def mapped(path: Path) -> np.ndarray:
    """Returns the read-only array in an `.npy` file, memory-mapped unless it is small."""
    if path.stat().st_size <= _MAPPED:
        array = np.load(path, allow_pickle=False)
        array.flags.writeable = False
        return array
    return np.load(path, mmap_mode="r", allow_pickle=False).view(np.ndarray)  # A `memmap` is slower.


def open_index(place: IndexPlace, kind: str, key: Any, parts: Sequence[Any]) -> DatasetIndex:
    """Opens the index of a source.

    Args:
        place: Its place.
        kind: As for `build_index`; so are `key` and `parts`.
        key: The key.
        parts: The parts.

    Raises:
        IndexInvalidError: If it is missing, damaged, of another version or of another source.
    """
    contents = source_hash(kind, key, parts)
    if place.system is not None:  # The name of the contents is a hash of the source: a copy is as good.
        with contextlib.suppress(IndexInvalidError):
            if (index := read_index(place.local())).contents == contents:
                return index
    if (index := read_index(place)).contents != contents:
        raise IndexInvalidError(f"the source has changed ({_change(index, plain_json(key), parts)})")
    return index


def read_index(place: IndexPlace) -> DatasetIndex:
    """Opens an index, of whatever state of its source.

    Raises:
        IndexInvalidError: If it is missing, damaged or of another version.
    """
    try:
        values = json.loads(place.load(INDEX).read_bytes())
    except FileNotFoundError:
        raise IndexInvalidError("there is none yet") from None
    except ValueError as error:
        raise IndexInvalidError(f"{INDEX} is damaged ({error})") from None
    if not isinstance(values, dict) or values.get("version") != VERSION:
        found = values.get("version") if isinstance(values, dict) else None
        raise IndexInvalidError(f"its version is {found}, and this package reads version {VERSION}")
    try:
        index = DatasetIndex(place, values)
    except (KeyError, TypeError, ValueError) as error:
        raise IndexInvalidError(f"{INDEX} is damaged ({type(error).__name__}: {error})") from None
    index.check_files()
    return index


def plain_json(value: Any) -> Any:
    """Returns a value as JSON returns it, with lists for tuples."""
    return json.loads(json.dumps(value))


def source_hash(kind: str, key: Any, parts: Sequence[Any]) -> str:
    """Returns a hash of what a source says of itself."""
    text = json.dumps([VERSION, kind, key, parts], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _change(index: DatasetIndex, key: Any, parts: Sequence[Any]) -> str:
    """Returns what differs between an index and its source, in words."""
    if index.key != key:
        if not isinstance(index.key, dict) or not isinstance(key, dict):
            return "its key"
        names = sorted(name for name in index.key.keys() | key.keys() if index.key.get(name) != key.get(name))
        return "its " + ", ".join(names[:5])
    then, now = ({json.dumps(part, sort_keys=True) for part in each} for each in (index.parts, parts))
    return f"{len(now - then):,} of its {len(now):,} parts are new or changed, {len(then - now):,} are gone"
