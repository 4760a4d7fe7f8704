"""What a folder of features holds, and the proof that it still does."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transfer_jax.features.row_format import RowFormat
from transfer_jax.storage.atomic_write import sha256, write_text

FILE = "manifest.json"
LABELS = "labels.npy"
_NOTES = "*.note.json"


class CorruptFeaturesError(ValueError):
    """A file of a feature cache is not what was written."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeatureKey:
    """Everything that features depend on; another value of any field is another cache.

    Attributes:
        weights: Fingerprint of the arrays of the frozen prefix.
        boundary: The block that the features are the activations of.
        preprocessing: The fields of `Preprocessing`, resolution included.
        dtype: Precision of the computation.
        dataset: Fingerprint of the dataset: name, version, split and content.
        augmentation: The fields of `Augmentation` under which views were drawn; None for plain images.
        views: Augmented views of each image; 1 for plain images.
        seed: Seed of the views; 0 for plain images.
        stored: The form that they are stored in, one of `storage.DTYPES`; None for `dtype`.
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
        """SHA-256 over all fields; names the folder."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        """All fields as canonical JSON."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "FeatureKey":
        """`to_json` turned around, up to the types of sequences."""
        return cls(**json.loads(text))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest:
    """The table of contents of a folder of features.

    Attributes:
        key: The key as JSON.
        rows: Number of rows when complete: views x images, view by view.
        shard_rows: Rows of each shard; the last may have fewer.
        row_shape: Shape of one row.
        dtype: The form of the rows: that of `RowFormat`.
        origin: The lower boundary whose cached features these were computed from; None for images.
        files: SHA-256 of each file that is complete, by name.
        errors: Of each shard in another form than computed, its `squared_error`.
    """

    key: str
    rows: int
    shard_rows: int
    row_shape: tuple[int, ...]
    dtype: str
    origin: str | None = None
    files: Mapping[str, str] = dataclasses.field(default_factory=dict)
    errors: Mapping[str, tuple[float, float]] = dataclasses.field(default_factory=dict)

    def shards(self) -> list[str]:
        """The names of all shards, written or not."""
        return [f"shard-{index:05d}.npy" for index in range(-(-self.rows // self.shard_rows))]

    def rows_of(self, shard: str) -> int:
        """The number of rows of a shard."""
        return min(self.shard_rows, self.rows - self.shards().index(shard) * self.shard_rows)

    @property
    def storage(self) -> RowFormat:
        """The form of the rows."""
        return RowFormat(self.row_shape, self.dtype)

    @property
    def bytes(self) -> int:
        """Bytes of all shards, when complete."""
        return self.rows * self.storage.row_bytes

    def complete(self) -> bool:
        """Whether every file was written."""
        return all(name in self.files for name in [*self.shards(), LABELS])

    @property
    def identity(self) -> str:
        """Says what the manifest is of, whatever is there of it."""
        return _checksum(dataclasses.asdict(dataclasses.replace(self, files={}, errors={})))

    def write(self, directory: Path) -> None:
        """Writes the manifest, with a checksum of its own, in one step; it takes the place of all notes."""
        content = dataclasses.asdict(self)
        text = json.dumps({"content": content, "sha256": _checksum(content)}, indent=1, sort_keys=True)
        write_text(directory / FILE, text)
        for note in directory.glob(_NOTES):
            note.unlink()

    def note(self, directory: Path, file: str, sha: str, errors: tuple[float, float] | None = None) -> Path:
        """Writes down that a file is whole, as any process may while others write others; returns where."""
        content = {"of": self.identity, "file": file, "sha256": sha, "errors": errors}
        path = directory / f"{Path(file).stem}.note.json"
        write_text(path, json.dumps(content))
        return path

    def _with_notes(self, directory: Path) -> "Manifest":
        files, errors, identity = dict(self.files), dict(self.errors), self.identity
        for path in directory.glob(_NOTES):
            try:
                note = json.loads(path.read_bytes())
            except (FileNotFoundError, ValueError):
                continue  # Merged by another process just now, or damaged.
            if note.get("of") == identity:
                files[note["file"]] = note["sha256"]
                if note["errors"]:
                    errors[note["file"]] = tuple(note["errors"])
        return dataclasses.replace(self, files=files, errors=errors)

    @classmethod
    def read(cls, directory: Path) -> "Manifest":
        """Reads a manifest, and the notes on what was written since.

        Raises:
            FileNotFoundError: If there is none.
            CorruptFeaturesError: If it is not what was written.
        """
        path = directory / FILE
        try:
            stored = json.loads(path.read_bytes())
            content, checksum = stored["content"], stored["sha256"]
        except FileNotFoundError:
            raise
        except (ValueError, KeyError, TypeError):
            raise CorruptFeaturesError(f"{path} cannot be read as a manifest") from None
        if checksum != _checksum(content):
            raise CorruptFeaturesError(f"{path} does not match its checksum")
        errors = {name: tuple(sums) for name, sums in content["errors"].items()}
        found = cls(**{**content, "row_shape": tuple(content["row_shape"]), "errors": errors})
        return found._with_notes(directory)

    def damaged(self, directory: Path) -> list[Path]:
        """The files that are missing or do not match their checksums."""
        paths = {directory / name: sha for name, sha in self.files.items()}
        return [path for path, sha in paths.items() if not path.is_file() or sha256(path) != sha]


def _checksum(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
