"""Checkpoints on disk, written by Orbax, with a checksum of every file.

Orbax commits a step atomically, but does not detect a flipped byte in a large array; hence the checksums. The
layout is `DIRECTORY/steps/STEP/…` and `DIRECTORY/records/STEP.json`, which has the checksums and the progress
of the run. If there are several processes, all write the arrays, and the first writes everything else.

In object storage, of which each process has its own copy, the first process writes whole arrays in NumPy's
format: Orbax 0.12 does not write to `s3://`, and not from one process alone.
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from transfer_jax.distributed import processes
from transfer_jax.storage.atomic_write import sha256, write_atomically, write_text
from transfer_jax.storage.remote import is_mirrored

_PROGRESS = "progress"
_logger = logging.getLogger(__name__)


class CorruptCheckpointError(ValueError):
    """An error for a checkpoint with a file that does not match its checksum."""


class Checkpoints:
    """The newest checkpoints of a run.

    A step without a record is incomplete, because the run ended while it was saved. It is deleted on opening.

    Args:
        directory: The folder of the checkpoints; it is created if needed.
        keep: The number of the newest checkpoints to keep.
    """

    def __init__(self, directory: Path, *, keep: int = 2) -> None:
        self._steps = directory.absolute() / "steps"
        self._records = directory.absolute() / "records"
        self._keep = keep
        self._mirrored = is_mirrored(self._steps)
        if processes.is_first() or self._mirrored:
            self._steps.mkdir(parents=True, exist_ok=True)
            self._records.mkdir(exist_ok=True)
            for path in self._steps.iterdir():
                if not (path.name.isdigit() and self._record(int(path.name)).is_file()):
                    _logger.warning("deleting the incomplete checkpoint %s", path)
                    shutil.rmtree(path)
        processes.wait("checkpoints opened")

    def latest(self) -> int | None:
        """Returns the newest step, or None if there is no checkpoint."""
        return max(self._steps_on_disk(), default=None)

    def save(
        self, step: int, trees: Mapping[str, Mapping[str, jax.Array]], progress: Mapping[str, Any]
    ) -> None:
        """Saves a checkpoint and waits until it is on disk. Replaces an earlier checkpoint of the same step.

        Args:
            step: Number of steps since the beginning of the run.
            trees: Named groups of arrays by name. Empty groups are left out.
            progress: The progress of the run, in JSON values.
        """
        content: dict[str, Any] = {name: dict(tree) for name, tree in trees.items() if tree}
        record = self._record(step)
        if processes.is_first():
            record.unlink(missing_ok=True)
        if self._mirrored:
            content = jax.tree.map(processes.to_host, content)
            if processes.is_first():
                _write_arrays(self._steps / str(step), content)
        else:
            _orbax().save_checkpointables(str(self._steps / str(step)), content, overwrite=True)
        if processes.is_first():
            hashes = {**self._hashes(step), _PROGRESS: _hash(progress)}
            write_text(record, json.dumps({"progress": progress, "sha256": hashes}, indent=1))
            for old in sorted(self._steps_on_disk())[: -self._keep]:
                self._record(old).unlink(missing_ok=True)
                shutil.rmtree(self._steps / str(old))
        processes.wait("checkpoint saved")

    def progress(self, step: int) -> dict[str, Any]:
        """Returns the progress of the run at a step.

        Raises:
            CorruptCheckpointError: If a file of the step does not match its checksum; the message names it.
        """
        return self._verified_record(step)[_PROGRESS]

    def names(self, step: int, name: str) -> set[str]:
        """Returns the names of the arrays in a group of a step.

        Raises:
            CorruptCheckpointError: If a file of the step does not match its checksum; the message names it.
        """
        self._verified_record(step)
        folder = self._steps / str(step)
        if self._mirrored:
            return set(_read_arrays(folder, name))
        found: Any = _orbax().checkpointables_metadata(str(folder)).metadata
        return set(found.get(name) or ())

    def arrays(
        self, step: int, name: str, template: Mapping[str, jax.Array] | None = None
    ) -> dict[str, jax.Array]:
        """Returns a group of arrays of a step.

        Args:
            step: The step.
            name: The name of the group.
            template: Arrays with the shapes and shardings of the results, by name. None loads whole
                arrays: onto the first local device, or, from object storage, as NumPy arrays.

        Raises:
            CorruptCheckpointError: If a file of the step does not match its checksum; the message names it.
        """
        if template is not None and not template:
            return {}
        self._verified_record(step)
        return self._load(step, name, None if template is None else dict(template))

    def _load(self, step: int, name: str, template: dict[str, Any] | None) -> dict[str, Any]:
        folder = self._steps / str(step)
        if not self._mirrored:
            template = _local_template(folder, name) if template is None else template
            return _orbax().load_checkpointables(str(folder), {name: template})[name] if template else {}
        found = _read_arrays(folder, name)
        return (
            found if template is None else {key: _placed_like(found[key], template[key]) for key in template}
        )

    def _verified_record(self, step: int) -> dict[str, Any]:
        """Returns the record of a step, after checking the checksums of all its files."""
        try:
            record = json.loads(self._record(step).read_text(encoding="utf-8"))
            expected, progress = record["sha256"], record["progress"]
        except (ValueError, KeyError):
            raise CorruptCheckpointError(
                f"{self._record(step)} is damaged; delete it to continue from the previous checkpoint"
            ) from None
        found = {**self._hashes(step), _PROGRESS: _hash(progress)}
        for name in sorted({*expected, *found}):
            if expected.get(name) != found.get(name):
                raise CorruptCheckpointError(
                    f"{self._steps / str(step) / name} does not match its checksum; delete "
                    f"{self._steps / str(step)} to continue from the previous checkpoint"
                )
        return record

    def _steps_on_disk(self) -> list[int]:
        """Returns the steps of all checkpoints, unsorted."""
        return [int(path.name) for path in self._steps.iterdir() if path.name.isdigit()]

    def _hashes(self, step: int) -> dict[str, str]:
        root = self._steps / str(step)
        paths = [path for path in sorted(root.rglob("*")) if path.is_file()]
        return {str(path.relative_to(root)): sha256(path) for path in paths}

    def _record(self, step: int) -> Path:
        return self._records / f"{step}.json"


def _orbax() -> Any:
    """Returns the API of Orbax, which is imported when it is first used: the import takes a while."""
    from orbax.checkpoint import v1

    return v1


def _local_template(folder: Path, name: str) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns templates of the saved arrays of a group, for loading them onto one local device."""
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    saved: Any = _orbax().checkpointables_metadata(str(folder)).metadata
    return {
        key: jax.ShapeDtypeStruct(like.shape, like.dtype, sharding=here)
        for key, like in (saved.get(name) or {}).items()
    }


def _hash(progress: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(progress, sort_keys=True).encode()).hexdigest()


def _write_arrays(folder: Path, content: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    """Writes groups of arrays, and the names of their dtypes: NumPy stores dtypes it lacks as raw bytes."""
    shutil.rmtree(folder, ignore_errors=True)  # An earlier checkpoint of the step may have other groups.
    folder.mkdir(parents=True)
    for name, arrays in content.items():
        types = {key: array.dtype.name for key, array in arrays.items()}
        plain: Any = {f"array_{index}": np.asarray(array) for index, array in enumerate(arrays.values())}
        write_atomically(folder / f"{name}.npz", lambda file, plain=plain: np.savez(file, **plain))
        write_text(folder / f"{name}.json", json.dumps(types))


def _read_arrays(folder: Path, name: str) -> dict[str, np.ndarray]:
    if not (folder / f"{name}.json").is_file():
        return {}
    types = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    with np.load(folder / f"{name}.npz") as file:
        return {
            key: file[f"array_{index}"].view(jnp.dtype(kind))
            for index, (key, kind) in enumerate(types.items())
        }


def _placed_like(array: np.ndarray, template: jax.Array) -> jax.Array:
    """Returns the array with the sharding of another one."""
    return jax.make_array_from_callback(array.shape, template.sharding, lambda part: array[part])
