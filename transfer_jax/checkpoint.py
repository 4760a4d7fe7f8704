"""Checkpoints on disk: orbax, with checksums of our own over every file.

Orbax commits a step atomically, but loads a flipped byte of a large array without noticing; hence the
checksums. The layout is `DIRECTORY/steps/STEP/…` and `DIRECTORY/records/STEP.json`, which has the checksums
and where the run was. Of several processes all write the arrays, and the first all else.
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import jax
from orbax.checkpoint import v1 as ocp

from transfer_jax import processes
from transfer_jax.files import sha256, write_text

_PROGRESS = "progress"
_logger = logging.getLogger(__name__)


class CorruptCheckpointError(ValueError):
    """A file of a checkpoint is not what was written."""


class Checkpoints:
    """The checkpoints of a run, newest kept.

    A step without a record was cut off while it was saved: it is removed on opening.

    Args:
        directory: Where they lie.
        keep: How many of the newest to keep.
    """

    def __init__(self, directory: Path, *, keep: int = 2) -> None:
        self._steps = directory.absolute() / "steps"
        self._records = directory.absolute() / "records"
        if processes.is_first():
            self._records.mkdir(parents=True, exist_ok=True)
            for path in self._steps.glob("*"):
                if path.name.isdigit() and not self._record(int(path.name)).is_file():
                    _logger.warning("%s was cut off while it was saved; it is removed", path)
                    shutil.rmtree(path)
        processes.wait("checkpoints opened")
        self._orbax = ocp.training.Checkpointer(
            str(self._steps),
            preservation_policy=cast(Any, ocp.training.preservation_policies.LatestN(keep)),
            cleanup_tmp_directories=True,
        )

    def latest(self) -> int | None:
        """The newest step, or None."""
        newest = self._orbax.latest
        return None if newest is None else newest.step

    def save(
        self, step: int, trees: Mapping[str, Mapping[str, jax.Array]], progress: Mapping[str, Any]
    ) -> None:
        """Saves a step, in place of an earlier save of it, and returns when it is on disk.

        Args:
            step: Steps taken since the beginning of the run.
            trees: Arrays by name, in named groups; an empty group is left out.
            progress: Where the run is, in JSON values.
        """
        content: dict[str, Any] = {name: dict(tree) for name, tree in trees.items() if tree}
        record = self._record(step)
        if processes.is_first():
            record.unlink(missing_ok=True)
        self._orbax.save_checkpointables(step, content, overwrite=True)
        if processes.is_first():
            hashes = {**self._hashes(step), _PROGRESS: _hash(progress)}
            write_text(record, json.dumps({"progress": progress, "sha256": hashes}, indent=1))
            kept = {str(checkpoint.step) for checkpoint in self._orbax.checkpoints}
            for old in self._records.glob("*.json"):
                if old.stem not in kept:
                    old.unlink()
        processes.wait("checkpoint saved")

    def progress(self, step: int) -> dict[str, Any]:
        """Where the run was at a step.

        Raises:
            CorruptCheckpointError: If any file of the step is not what was written; it is named.
        """
        return self._verified(step)[_PROGRESS]

    def names(self, step: int, name: str) -> set[str]:
        """The names of the arrays in a group of a step.

        Raises:
            CorruptCheckpointError: If any file of the step is not what was written; it is named.
        """
        self._verified(step)
        found: Any = self._orbax.checkpointables_metadata(step).metadata
        return set(found.get(name) or ())

    def arrays(
        self, step: int, name: str, template: Mapping[str, jax.Array] | None = None
    ) -> dict[str, jax.Array]:
        """A group of arrays of a step, in the shapes and places of `template`, or as they were saved.

        Raises:
            CorruptCheckpointError: If any file of the step is not what was written; it is named.
        """
        if template is not None and not template:
            return {}
        self._verified(step)
        return self._load(step, name, None if template is None else dict(template))

    def close(self) -> None:
        """Ends the background threads."""
        self._orbax.close()

    def _load(self, step: int, name: str, template: dict[str, Any] | None) -> dict[str, Any]:
        return self._orbax.load_checkpointables(step, {name: template})[name]

    def _verified(self, step: int) -> dict[str, Any]:
        """The record of a step, whose files are all as they were written."""
        try:
            record = json.loads(self._record(step).read_text())
            expected, progress = record["sha256"], record["progress"]
        except (ValueError, KeyError):
            raise CorruptCheckpointError(f"{self._record(step)} cannot be read") from None
        found = {**self._hashes(step), _PROGRESS: _hash(progress)}
        for name in sorted({*expected, *found}):
            if expected.get(name) != found.get(name):
                raise CorruptCheckpointError(
                    f"{self._steps / str(step) / name} does not match its checksum; delete "
                    f"{self._steps / str(step)} to go on from the checkpoint before it"
                )
        return record

    def _hashes(self, step: int) -> dict[str, str]:
        root = self._steps / str(step)
        paths = [path for path in sorted(root.rglob("*")) if path.is_file()]
        return {str(path.relative_to(root)): sha256(path) for path in paths}

    def _record(self, step: int) -> Path:
        return self._records / f"{step}.json"


def _hash(progress: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(progress, sort_keys=True).encode()).hexdigest()
