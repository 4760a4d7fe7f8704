"""The key of a feature cache, and the manifest that lists its files with their checksums."""

import dataclasses
import functools
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transfer_jax.features.cache_files import FILE, CacheFiles, open_files, write
from transfer_jax.features.row_format import RowFormat

LABELS = "labels.npy"
"""Name of the file of labels in the folder of a cache."""
_NOTE = re.compile(r"(shard-[0-9]+|labels)\.note\.json")


class CorruptFeaturesError(ValueError):
    """A file of a feature cache that is missing or damaged."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeatureKey:
    """All that features depend on. Keys that differ in any field have different caches.

    Attributes:
        weights: Hash of the arrays of the frozen prefix, or the digest of a `Split`.
        boundary: The block whose activations the features are, or the names of several arrays.
        preprocessing: The fields of `Preprocessing`, resolution included.
        dtype: Precision of the computation, such as `float32`.
        dataset: Fingerprint of the dataset: name, version, split and content.
        augmentation: The fields of the `Augmentation` of the views; None for images without augmentation.
        views: Number of augmented views of each image; 1 without augmentation.
        seed: Seed of the views; 0 without augmentation.
        stored: The dtype in which the features are stored, one of `row_format.DTYPES`; None for `dtype`.
    """

    weights: str
    boundary: str
    preprocessing: Mapping[str, Any]
    dtype: str
    dataset: str
    augmentation: Mapping[str, Any] | None = None
    views: int = 1
    seed: int = 0
    stored: str | None = None

    def digest(self) -> str:
        """Returns the SHA-256 of all fields, from which the name of the folder is made."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        """Returns all fields as canonical JSON."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "FeatureKey":
        """Returns the key that `to_json` wrote; tuples inside mappings become lists."""
        return cls(**json.loads(text))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest:
    """The contents of the folder of a feature cache.

    Attributes:
        key: The `FeatureKey` as JSON.
        rows: Number of rows of the complete cache: views x images, view by view.
        shard_rows: Number of rows of each shard; the last one may have fewer.
        row_format: The arrays of one row, with their shapes and dtypes.
        origin: The lower boundary whose cached features these were computed from; None if from images.
        files: SHA-256 of each complete file, by name.
        errors: `squared_error` of each shard with a reduced precision, by name.
        labels: False for a cache without a file of labels.
    """

    key: str
    rows: int
    shard_rows: int
    row_format: RowFormat
    origin: str | None = None
    files: Mapping[str, str] = dataclasses.field(default_factory=dict)
    errors: Mapping[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    labels: bool = True

    @property
    def shard_count(self) -> int:
        """Number of shards."""
        return -(-self.rows // self.shard_rows)

    def shards(self) -> list[str]:
        """Returns the names of all shards, including those that are not written yet."""
        return [shard_name(index) for index in range(self.shard_count)]

    def rows_of(self, index: int) -> int:
        """Returns the number of rows of a shard."""
        return min(self.shard_rows, self.rows - index * self.shard_rows)

    @property
    def bytes(self) -> int:
        """Size of all shards of the complete cache, in bytes."""
        return self.rows * self.row_format.row_bytes

    def complete(self) -> bool:
        """Returns True if all files are written."""
        return all(name in self.files for name in [*self.shards(), *([LABELS] if self.labels else [])])

    @functools.cached_property
    def identity(self) -> str:
        """The SHA-256 of the manifest without its files; the same at each stage of the extraction."""
        return _checksum(dataclasses.replace(self, files={}, errors={})._content())

    def _content(self) -> dict[str, Any]:
        """Returns the fields as JSON. Those of a single array are the same as in earlier versions."""
        content = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        row_format, labels = content.pop("row_format"), content.pop("labels")
        return {**content, **row_format.to_json(), **({} if labels else {"labels": labels})}

    def write(self, directory: Path) -> None:
        """Writes the manifest atomically, with a checksum of its own, and deletes all notes."""
        content = self._content()
        text = json.dumps({"content": content, "sha256": _checksum(content)}, indent=1, sort_keys=True)
        files = open_files(directory)
        write(files, FILE, lambda file: file.write(text.encode()))
        files.delete(_notes(files))

    def note(self, files: CacheFiles, file: str, sha: str, errors: tuple[float, float] | None = None) -> None:
        """Writes a note that a file is complete.

        Several processes may write notes on different files at the same time.

        Args:
            files: The files of the cache.
            file: Name of the complete file.
            sha: SHA-256 of the file.
            errors: Its `squared_error`, if the precision is reduced.
        """
        content = json.dumps({"of": self.identity, "file": file, "sha256": sha, "errors": errors})
        write(files, f"{Path(file).stem}.note.json", lambda opened: opened.write(content.encode()))

    def _with_notes(self, notes: Mapping[str, Any]) -> "Manifest":
        """Returns the manifest with the files of all valid notes."""
        files, errors = dict(self.files), dict(self.errors)
        for content in notes.values():
            try:
                note = json.loads(content)
            except ValueError:  # Damaged.
                continue
            if note.get("of") == self.identity:
                files[note["file"]] = note["sha256"]
                if note["errors"]:
                    errors[note["file"]] = tuple(note["errors"])
        return dataclasses.replace(self, files=files, errors=errors)

    @classmethod
    def read(cls, directory: Path) -> "Manifest":
        """Reads a manifest, and the notes on files that were written after it.

        Args:
            directory: The folder of the cache.

        Raises:
            FileNotFoundError: If there is no manifest.
            CorruptFeaturesError: If the manifest is damaged.
        """
        path, files = directory / FILE, open_files(directory)
        try:
            stored = json.loads(files.read(FILE))
            content, checksum = stored["content"], stored["sha256"]
        except FileNotFoundError:
            raise
        except (ValueError, KeyError, TypeError):
            raise CorruptFeaturesError(f"{path} is not a valid manifest") from None
        if checksum != _checksum(content):
            raise CorruptFeaturesError(f"{path} does not match its checksum")
        row_format = RowFormat.from_json(content)
        errors = {name: tuple(sums) for name, sums in content["errors"].items()}
        fields = {name: each for name, each in content.items() if name not in row_format.to_json()}
        manifest = cls(**{**fields, "row_format": row_format, "errors": errors})
        return manifest if manifest.complete() else manifest._with_notes(files.read_all(_notes(files)))

    def damaged(self, directory: Path) -> list[Path]:
        """Returns the paths of the listed files that are missing or damaged; see `CacheFiles.damaged`."""
        row_bytes = self.row_format.row_bytes
        sizes = {shard_name(index): self.rows_of(index) * row_bytes for index in range(self.shard_count)}
        return [directory / name for name in open_files(directory).damaged(self.files, sizes)]


def shard_name(index: int) -> str:
    """Returns the name of the file of a shard."""
    return f"shard-{index:05d}.npy"


def _notes(files: CacheFiles) -> list[str]:
    """Returns the names of all notes."""
    return [name for name in files.names() if _NOTE.fullmatch(name)]


def _checksum(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
