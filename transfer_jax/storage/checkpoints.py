"""Checkpoints on disk, written by Orbax, with a checksum of every file.

Orbax commits a step atomically, but does not detect a flipped byte in a large array; hence the checksums. The
layout is `DIRECTORY/steps/STEP/…` and `DIRECTORY/records/STEP.json`, which has the checksums and the progress
of the run. If there are several processes, all write the arrays, and the first writes everything else.

In Google Cloud Storage the steps are in `DIRECTORY/orbax/STEP`. Orbax writes them there in the background,
each process its own shards, and the checksums are those of the bucket. In other object storage, of which each
process has its own copy, the first process writes whole arrays in NumPy's format: Orbax 0.12 does not write
to `s3://`, and not from one process alone.
"""

import json
import logging
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np

from transfer_jax.distributed import processes
from transfer_jax.storage.atomic_write import sha256, write_text
from transfer_jax.storage.checkpoint_files import (
    array_metadata,
    disk_errors_named,
    file_hashes,
    local_template,
    orbax,
    orbax_logs,
    progress_hash,
    read_arrays,
    write_arrays,
)
from transfer_jax.storage.foreign_files import is_foreign
from transfer_jax.storage.orbax_bucket import orbax_bucket
from transfer_jax.storage.remote import is_mirrored, push

Result = TypeVar("Result")
_PROGRESS, _OBJECTS = "progress", "objects"
_STEP = re.compile(r"[0-9]+")
_UNFINISHED_STEP = re.compile(r"[0-9]+(\.orbax-checkpoint-tmp.*)?")
"""The names of the folders of steps, and of those that Orbax renames when they are complete."""
_logger = logging.getLogger(__name__)


class CorruptCheckpointError(ValueError):
    """An error for a checkpoint with a file that does not match its checksum."""


class Checkpoints:
    """The newest checkpoints of a run, which are only read.

    A step without a record is incomplete, because the run ended while it was saved or is saving it; it does
    not count. Files and folders of others, such as those of a file browser, are ignored. A run may save while
    its checkpoints are read; see `read_newest`.

    Args:
        directory: The folder of the checkpoints, which need not exist.
    """

    def __init__(self, directory: Path) -> None:
        self._steps = directory.absolute() / "steps"
        self._records = directory.absolute() / "records"
        self._bucket = orbax_bucket(directory.absolute())
        self._mirrored = is_mirrored(self._steps)

    def latest(self) -> int | None:
        """Returns the newest step, or None if there is no checkpoint."""
        return max(self._complete(), default=None)

    def numbers(self) -> list[int]:
        """Returns all steps, newest first."""
        return sorted(self._complete(), reverse=True)

    def read_newest(self, read: Callable[[int], Result]) -> Result | None:
        """Returns the result of a function of the newest step, or None if there is no checkpoint.

        The function is called again if the run deletes the step while it is read, because it has saved newer
        ones.
        """
        while (step := self.latest()) is not None:
            try:
                return read(step)
            except Exception:
                if self.latest() == step:
                    raise
        return None

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
        if self._is_mirrored(step):
            return set(read_arrays(self._steps / str(step), name))
        return set(array_metadata(self._place(step), name))

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
        if not self._is_mirrored(step):
            folder = self._place(step)
            template = local_template(folder, name) if template is None else template
            return orbax().load_checkpointables(folder, {name: template})[name] if template else {}
        found = read_arrays(self._steps / str(step), name)
        return (
            found if template is None else {key: _placed_like(found[key], template[key]) for key in template}
        )

    def _is_mirrored(self, step: int) -> bool:
        """Returns True for a step in NumPy's format, as earlier versions write it to `gs://`, too."""
        return self._mirrored and (self._bucket is None or (self._steps / str(step)).is_dir())

    def _place(self, step: int) -> str:
        """Returns the folder or the address of a step that Orbax has written."""
        return str(self._steps / str(step)) if self._bucket is None else self._bucket.address(step)

    def _verified_record(self, step: int) -> dict[str, Any]:
        """Returns the record of a step, after checking the checksums of all its files."""
        try:
            record = json.loads(self._record(step).read_text(encoding="utf-8"))
            expected, progress = record["sha256"], record["progress"]
        except (ValueError, KeyError):
            raise CorruptCheckpointError(
                f"{self._record(step)} is damaged; delete it to continue from the previous checkpoint"
            ) from None
        if self._bucket is not None and not self._is_mirrored(step):
            if expected[_PROGRESS] == progress_hash(progress) and self._bucket.objects(step) == record.get(
                _OBJECTS
            ):
                return record
            raise CorruptCheckpointError(
                f"{self._bucket.address(step)} is not as it was saved; delete {self._record(step)} in object "
                "storage to continue from the previous checkpoint"
            )
        folder = self._steps / str(step)
        for name, digest in sorted(expected.items()):
            if name == _PROGRESS:
                matches = digest == progress_hash(progress)
            elif is_foreign(name):  # Earlier versions recorded these.
                continue
            else:
                matches = (folder / name).is_file() and digest == sha256(folder / name)
            if not matches:
                raise CorruptCheckpointError(
                    f"{folder / name} does not match its checksum; delete {folder} to continue from the "
                    "previous checkpoint"
                )
        return record

    def _complete(self) -> list[int]:
        """Returns the steps that have a record, unsorted."""
        if self._bucket is not None:
            records = self._records.iterdir() if self._records.is_dir() else ()
            names = [path.stem for path in records if path.suffix == ".json"]
            return [int(name) for name in names if _STEP.fullmatch(name)]
        found = self._steps.iterdir() if self._steps.is_dir() else ()
        return [
            int(path.name)
            for path in found
            if _STEP.fullmatch(path.name) and self._record(int(path.name)).is_file()
        ]

    def _record(self, step: int) -> Path:
        return self._records / f"{step}.json"


class SavedCheckpoints(Checkpoints):
    """The checkpoints of a run that is training: `save` adds new ones and deletes old ones.

    Only the training that holds the lock of the workdir may open them. Opening deletes incomplete steps.

    Args:
        directory: The folder of the checkpoints; it is created if needed.
        keep: The number of the newest checkpoints to keep.
    """

    def __init__(self, directory: Path, *, keep: int = 2) -> None:
        super().__init__(directory)
        self._keep = keep
        if processes.is_first() or self._mirrored:
            self._steps.mkdir(parents=True, exist_ok=True)
            self._records.mkdir(exist_ok=True)
            for path in self._steps.iterdir():
                if self._is_incomplete(path):
                    _logger.warning("deleting the incomplete checkpoint %s", path)
                    shutil.rmtree(path, ignore_errors=True)
        if self._bucket is not None and processes.is_first():
            complete = {str(step) for step in self._complete()}
            for name in self._bucket.steps():
                if _UNFINISHED_STEP.fullmatch(name) and name not in complete:
                    _logger.warning("deleting the incomplete checkpoint %s in object storage", name)
                    self._bucket.delete(name)
        processes.wait("checkpoints opened")

    def save(
        self, step: int, trees: Mapping[str, Mapping[str, jax.Array]], progress: Mapping[str, Any]
    ) -> None:
        """Saves a checkpoint and waits until it is on disk. Replaces an earlier checkpoint of the same step.

        In Google Cloud Storage it is complete after `wait`: the arrays are copied to the memory of the host,
        and uploaded in the background.

        Args:
            step: Number of steps since the beginning of the run.
            trees: Named groups of arrays by name. Empty groups are left out.
            progress: The progress of the run, in JSON values.

        Raises:
            OSError: If writing fails, as on a full disk. It names the folder; earlier checkpoints remain.
        """
        content: dict[str, Any] = {name: dict(tree) for name, tree in trees.items() if tree}
        record, folder = self._record(step), self._steps / str(step)
        self.wait()
        if processes.is_first():
            record.unlink(missing_ok=True)
        if self._bucket is not None:
            self._save_to_bucket(step, content, dict(progress))
            return
        if self._mirrored:
            content = jax.tree.map(processes.to_host, content)
            if processes.is_first():
                write_arrays(folder, content)
        else:
            with disk_errors_named(folder), orbax_logs(logging.CRITICAL):
                orbax().save_checkpointables(str(folder), content, overwrite=True)
        if processes.is_first():
            hashes = {**file_hashes(folder), _PROGRESS: progress_hash(progress)}
            write_text(record, json.dumps({"progress": progress, "sha256": hashes}, indent=1))
            for old in sorted(self._complete())[: -self._keep]:
                self._record(old).unlink(missing_ok=True)
                shutil.rmtree(self._steps / str(old), ignore_errors=True)
        processes.wait("checkpoint saved")

    def _save_to_bucket(self, step: int, content: dict[str, Any], progress: dict[str, Any]) -> None:
        """Copies the arrays, and begins to upload them. The record is uploaded when they are complete."""
        bucket, record = self._bucket, self._record(step)
        assert bucket is not None
        if processes.is_first():
            push(record)  # Deletes an earlier one in object storage.
        processes.wait("checkpoint begins")
        with orbax_logs(logging.CRITICAL):
            response = orbax().save_checkpointables_async(bucket.address(step), content, overwrite=True)

        def finish() -> None:
            response.result()
            if not processes.is_first():
                return
            hashes = {_PROGRESS: progress_hash(progress)}
            content = {"progress": progress, "sha256": hashes, _OBJECTS: bucket.objects(step)}
            write_text(record, json.dumps(content, indent=1))
            push(record)
            for old in sorted(self._complete())[: -self._keep]:
                self._record(old).unlink(missing_ok=True)
                push(self._record(old))
                shutil.rmtree(self._steps / str(old), ignore_errors=True)
                bucket.delete(str(old))

        bucket.finish_later(finish)

    def wait(self) -> None:
        """Waits until the checkpoint that is being saved in the background is complete.

        Raises:
            Exception: The error of saving it, such as a missing permission.
        """
        if self._bucket is not None:
            self._bucket.wait()

    def _is_incomplete(self, path: Path) -> bool:
        """Returns whether a path is a step without a record, or a temporary folder of Orbax."""
        found = _UNFINISHED_STEP.fullmatch(path.name)
        if found is None or path.is_symlink() or not path.is_dir():
            return False
        return found[1] is not None or not self._record(int(path.name)).is_file()


def _placed_like(array: np.ndarray, template: jax.Array) -> jax.Array:
    """Returns the array with the sharding of another one."""
    return jax.make_array_from_callback(array.shape, template.sharding, lambda part: array[part])
