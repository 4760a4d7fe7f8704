"""The index of one part of a source, such as a shard, and groups of them in files."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from transfer_jax.data.index.texts import TextColumn, encode_texts


@dataclasses.dataclass(frozen=True, eq=False)
class PartIndex:
    """The columns of the examples of one part of a source. All parts of a source have the same columns.

    Attributes:
        columns: Arrays `(n, …)` by name: `labels`, and others that a source needs. Their dtypes are numbers
            or booleans; the joined column has the smallest dtype that contains those of all parts.
        texts: Strings by name, `n` of each, such as `names`.
        about: Facts of the part as JSON, such as numbers of files that are left out.
        count: Number of examples, `n`; None takes the length of a column.

    Raises:
        ValueError: If columns have different lengths or other dtypes, or there is none and no count.
    """

    columns: Mapping[str, np.ndarray]
    texts: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    about: Any = None
    count: int | None = None

    def __post_init__(self) -> None:
        lengths = {name: len(values) for name, values in (*self.columns.items(), *self.texts.items())}
        counts = {*lengths.values(), *([] if self.count is None else [self.count])}
        if len(counts) != 1:
            raise ValueError(f"columns must have one length, got {lengths or 'no columns'}")
        if foreign := {n: v.dtype for n, v in self.columns.items() if v.dtype.kind not in "biuf"}:
            raise ValueError(f"columns must be numbers or booleans, got {foreign}; strings are texts")
        object.__setattr__(self, "count", counts.pop())

    def __len__(self) -> int:
        assert self.count is not None
        return self.count


def write_parts(path: Path, parts: Sequence[PartIndex]) -> None:
    """Writes the columns of a group of parts, one after the other, into one file."""
    arrays: dict[str, np.ndarray] = {
        "counts": np.array([len(part) for part in parts], np.int64),
        "about": np.frombuffer(json.dumps([part.about for part in parts]).encode(), np.uint8),
    }
    for name in parts[0].columns:
        arrays[f"column {name}"] = np.concatenate([part.columns[name] for part in parts])
    for name in parts[0].texts:
        pairs = [_encoded(part.texts[name]) for part in parts]
        arrays[f"bytes {name}"] = np.concatenate([content for content, _ in pairs])
        arrays[f"lengths {name}"] = np.concatenate([lengths for _, lengths in pairs])
    with path.open("wb") as file:
        np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]


def _encoded(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    return texts.arrays() if isinstance(texts, TextColumn) else encode_texts(texts)


class DamagedPartsError(ValueError):
    """A file of a group of parts is damaged.

    Attributes:
        path: The file.
    """

    def __init__(self, path: Path, error: Exception) -> None:
        super().__init__(f"{path} is damaged: {error}")
        self.path = path


class PartsFile:
    """A file of `write_parts`; its arrays are read one at a time.

    Args:
        path: The file.

    Raises:
        FileNotFoundError: If there is no such file.
        DamagedPartsError: If the file is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with np.load(path, allow_pickle=False) as file:
                self._names: list[str] = file.files
                self.counts: np.ndarray = file["counts"]
                self.about: list = json.loads(file["about"].tobytes())
        except FileNotFoundError:
            raise
        except Exception as error:  # `zipfile` and NumPy raise various errors for damaged files.
            raise DamagedPartsError(path, error) from error

    @property
    def columns(self) -> list[str]:
        """Names of the columns."""
        return [name.removeprefix("column ") for name in self._names if name.startswith("column ")]

    @property
    def texts(self) -> list[str]:
        """Names of the texts."""
        return [name.removeprefix("bytes ") for name in self._names if name.startswith("bytes ")]

    def column(self, name: str) -> np.ndarray:
        """Returns a column."""
        return self._read(f"column {name}")

    def text_lengths(self, name: str) -> np.ndarray:
        """Returns the number of bytes of each string."""
        return self._read(f"lengths {name}")

    def text_bytes(self, name: str) -> np.ndarray:
        """Returns the strings, one after the other."""
        return self._read(f"bytes {name}")

    def _read(self, name: str) -> np.ndarray:
        try:
            with np.load(self._path, allow_pickle=False) as file:
                return file[name]
        except FileNotFoundError:
            raise
        except Exception as error:  # A damaged array is noticed by its checksum.
            raise DamagedPartsError(self._path, error) from error
