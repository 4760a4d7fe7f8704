"""Checkpoints on disk: orbax, with checksums of our own over every file.

Orbax commits a step atomically, but loads a flipped byte of a large array without noticing; hence the
checksums. The layout is `DIRECTORY/steps/STEP/…` and `DIRECTORY/checksums/STEP.json`.
"""

import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from transfer_jax.files import sha256, write_text

_logger = logging.getLogger(__name__)


class CorruptCheckpointError(ValueError):
    """A file of a checkpoint is not what was written."""


class Checkpoints:
    """The checkpoints of a run, newest kept.

    A step without checksums was cut off while it was saved: it is removed on opening.

    Args:
        directory: Where they lie.
        keep: How many of the newest to keep.
    """

    def __init__(self, directory: Path, *, keep: int = 2) -> None:
        self._steps = directory.absolute() / "steps"
        self._checksums = directory.absolute() / "checksums"
        self._checksums.mkdir(parents=True, exist_ok=True)
        for path in self._steps.glob("*"):
            if path.name.isdigit() and not self._checksum_file(int(path.name)).is_file():
                _logger.warning("%s was cut off while it was saved; it is removed", path)
                shutil.rmtree(path)
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
        file = self._checksum_file(step)
        file.unlink(missing_ok=True)
        content["progress"] = {"json": np.frombuffer(json.dumps(progress).encode(), np.uint8)}
        self._orbax.save_checkpointables(step, content, overwrite=True)
        write_text(file, json.dumps(self._hashes(step), indent=1))
        kept = {str(checkpoint.step) for checkpoint in self._orbax.checkpoints}
        for old in self._checksums.glob("*.json"):
            if old.stem not in kept:
                old.unlink()

    def progress(self, step: int) -> dict[str, Any]:
        """Where the run was at a step.

        Raises:
            CorruptCheckpointError: If any file of the step is not what was written; it is named.
        """
        self._verify(step)
        return json.loads(self._load(step, "progress", None)["json"].tobytes())

    def names(self, step: int, name: str) -> set[str]:
        """The names of the arrays in a group of a step.

        Raises:
            CorruptCheckpointError: If any file of the step is not what was written; it is named.
        """
        self._verify(step)
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
        self._verify(step)
        return self._load(step, name, None if template is None else dict(template))

    def close(self) -> None:
        """Ends the background threads."""
        self._orbax.close()

    def _load(self, step: int, name: str, template: dict[str, Any] | None) -> dict[str, Any]:
        return self._orbax.load_checkpointables(step, {name: template})[name]

    def _verify(self, step: int) -> None:
        try:
            expected = json.loads(self._checksum_file(step).read_text())
        except ValueError:
            raise CorruptCheckpointError(f"{self._checksum_file(step)} cannot be read") from None
        found = self._hashes(step)
        for name in sorted({*expected, *found}):
            if expected.get(name) != found.get(name):
                raise CorruptCheckpointError(
                    f"{self._steps / str(step) / name} does not match its checksum; delete "
                    f"{self._steps / str(step)} to go on from the checkpoint before it"
                )

    def _hashes(self, step: int) -> dict[str, str]:
        root = self._steps / str(step)
        paths = [path for path in sorted(root.rglob("*")) if path.is_file()]
        return {str(path.relative_to(root)): sha256(path) for path in paths}

    def _checksum_file(self, step: int) -> Path:
        return self._checksums / f"{step}.json"
