"""The key of a feature cache, and the manifest that lists its files with their checksums."""

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transfer_jax.features.row_format import RowFormat
from transfer_jax.storage.atomic_write import sha256, write_text

FILE = "manifest.json"
"""Name of the manifest in the folder of a cache."""
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

    def shards(self) -> list[str]:
        """Returns the names of all shards, including those that are not written yet."""
        return [f"shard-{index:05d}.npy" for index in range(-(-self.rows // self.shard_rows))]

    def rows_of(self, shard: str) -> int:
        """Returns the number of rows of a shard."""
        return min(self.shard_rows, self.rows - self.shards().index(shard) * self.shard_rows)

    @property
    def bytes(self) -> int:
        """Size of all shards of the complete cache, in bytes."""
        return self.rows * self.row_format.row_bytes

    def complete(self) -> bool:
        """Returns True if all files are written."""
        return all(name in self.files for name in [*self.shards(), *([LABELS] if self.labels else [])])

    @property
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
        write_text(directory / FILE, text)
        for note in _notes(directory):
            note.unlink(missing_ok=True)

    def note(self, directory: Path, file: str, sha: str, errors: tuple[float, float] | None = None) -> Path:
        """Writes a note that a file is complete, and returns its path.

        Several processes may write notes on different files at the same time.

        Args:
            directory: The folder of the cache.
            file: Name of the complete file.
            sha: SHA-256 of the file.
            errors: Its `squared_error`, if the precision is reduced.
        """
        content = {"of": self.identity, "file": file, "sha256": sha, "errors": errors}
        path = directory / f"{Path(file).stem}.note.json"
        write_text(path, json.dumps(content))
        return path

    def _with_notes(self, directory: Path) -> "Manifest":
        """Returns the manifest with the files of all valid notes in a folder."""
        files, errors, identity = dict(self.files), dict(self.errors), self.identity
        for path in _notes(directory):
            try:
                note = json.loads(path.read_bytes())
            except (FileNotFoundError, ValueError):
                continue  # Deleted by another process that wrote the manifest, or damaged.
            if note.get("of") == identity:
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
        path = directory / FILE
        try:
            stored = json.loads(path.read_bytes())
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
        return manifest._with_notes(directory)

    def damaged(self, directory: Path) -> list[Path]:
        """Returns the paths of the listed files that are missing or do not match their checksums."""
        paths = {directory / name: sha for name, sha in self.files.items()}
        return [path for path, sha in paths.items() if not path.is_file() or sha256(path) != sha]


def _notes(directory: Path) -> list[Path]:
    """Returns the notes in a folder."""
    return [path for path in directory.iterdir() if _NOTE.fullmatch(path.name)]


def _checksum(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
