"""The files of a checkpoint: arrays that Orbax writes, arrays in NumPy's format, and checksums."""

import contextlib
import errno
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from transfer_jax.storage.atomic_write import sha256, write_atomically, write_text
from transfer_jax.storage.foreign_files import is_foreign


def orbax() -> Any:
    """Returns the API of Orbax, which is imported when it is first used: the import takes a while."""
    from orbax.checkpoint import v1

    return v1


def local_template(folder: str, name: str) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns templates of the saved arrays of a group, for loading them onto one local device."""
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return {
        key: jax.ShapeDtypeStruct(like.shape, like.dtype, sharding=here)
        for key, like in array_metadata(folder, name).items()
    }


def array_metadata(folder: str, name: str) -> Mapping[str, Any]:
    """Returns the shapes and dtypes of the arrays in a group, by name."""
    with orbax_logs(logging.ERROR):  # Orbax warns of folders that it has not written.
        found: Any = orbax().checkpointables_metadata(folder).metadata
    return found.get(name) or {}


@contextlib.contextmanager
def orbax_logs(least: int) -> Iterator[None]:
    """Limits what Orbax logs to a level: it logs the tracebacks of errors that it also raises."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(least)
    try:
        yield
    finally:
        logger.setLevel(level)


def file_hashes(folder: Path) -> dict[str, str]:
    """Returns the checksums of the files in the folder of a step, by their paths in it."""
    paths = [path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path): sha256(folder / path) for path in paths if not is_foreign(path)}


@contextlib.contextmanager
def disk_errors_named(folder: Path) -> Iterator[None]:
    """Raises an `OSError` with the name of a folder for the errors of TensorStore on a full disk."""
    try:
        yield
    except Exception as error:
        for number in (errno.ENOSPC, errno.EDQUOT):
            if os.strerror(number) in str(error) or getattr(error, "errno", None) == number:
                raise OSError(number, os.strerror(number), str(folder)) from error
        raise


def progress_hash(progress: Mapping[str, Any]) -> str:
    """Returns the checksum of the progress of a run, in JSON values."""
    return hashlib.sha256(json.dumps(progress, sort_keys=True).encode()).hexdigest()


def write_arrays(folder: Path, content: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    """Writes groups of arrays, and the names of their dtypes: NumPy stores dtypes it lacks as raw bytes."""
    shutil.rmtree(folder, ignore_errors=True)  # An earlier checkpoint of the step may have other groups.
    folder.mkdir(parents=True)
    for name, arrays in content.items():
        types = {key: array.dtype.name for key, array in arrays.items()}
        plain: Any = {f"array_{index}": np.asarray(array) for index, array in enumerate(arrays.values())}
        write_atomically(folder / f"{name}.npz", lambda file, plain=plain: np.savez(file, **plain))
        write_text(folder / f"{name}.json", json.dumps(types))


def read_arrays(folder: Path, name: str) -> dict[str, np.ndarray]:
    """Returns a group of arrays that `write_arrays` wrote; none if the step has no such group."""
    if not (folder / f"{name}.json").is_file():
        return {}
    types = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    with np.load(folder / f"{name}.npz") as file:
        return {
            key: file[f"array_{index}"].view(jnp.dtype(kind))
            for index, (key, kind) in enumerate(types.items())
        }
