"""Readers of weight files, one for each format. Nothing else in the package knows file formats."""

from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import NamedTuple

from transfer_jax.weights.readers.entries import listed
from transfer_jax.weights.readers.errors import CheckpointError, SeveralStateDictsError, error_prefix
from transfer_jax.weights.readers.folder import find_weights
from transfer_jax.weights.readers.foreign_files import describe_foreign, describe_part
from transfer_jax.weights.readers.keras import is_keras, read_keras
from transfer_jax.weights.readers.lazy_weights import ArrayInfo, LazyWeights
from transfer_jax.weights.readers.npz import is_npz, read_npz
from transfer_jax.weights.readers.orbax import find_orbax, read_orbax
from transfer_jax.weights.readers.safetensors import is_safetensors, read_safetensors
from transfer_jax.weights.readers.safetensors_index import is_index, read_index
from transfer_jax.weights.readers.torch import is_torch, read_torch

__all__ = [
    "FORMATS",
    "ArrayInfo",
    "CheckpointError",
    "LazyWeights",
    "SeveralStateDictsError",
    "error_prefix",
    "read_weights",
]


class _Format(NamedTuple):
    matches: Callable[[bytes, int], bool]  # takes the file's first bytes and its size in bytes
    read: Callable[[Path, str | None], LazyWeights]


# To add a format, add a line. The first format that matches is used.
_FORMATS = {
    "safetensors": _Format(is_safetensors, read_safetensors),
    "safetensors-index": _Format(is_index, read_index),
    "keras": _Format(is_keras, read_keras),
    "npz": _Format(is_npz, read_npz),
    "orbax": _Format(lambda head, size: False, read_orbax),
    "torch": _Format(is_torch, read_torch),
}

FORMATS: tuple[str, ...] = tuple(_FORMATS)
"""The names of the formats that `read_weights` knows."""


def read_weights(
    path: str | PathLike[str], format: str | None = None, *, entry: str | None = None
) -> LazyWeights:
    """Opens a weight file as a read-only mapping of names to arrays. Each array is read on access.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> from safetensors.numpy import save_file
        >>> with TemporaryDirectory() as folder:
        ...     save_file({"stem.weight": np.zeros((8, 3, 3, 3))}, Path(folder) / "weights")
        ...     read_weights(Path(folder) / "weights")["stem.weight"].shape
        (8, 3, 3, 3)

    Args:
        path: the file, or the folder of a model. The file's extension is ignored.
        format: one of `FORMATS`. None detects the format from the file's first bytes.
        entry: the part of the file to read, such as the state dict "model_ema" of a PyTorch checkpoint, the
            keys that begin with "teacher." or "params/img/", or a layer of a Keras model. None takes the only
            state dict, the parameters, or all arrays, depending on the format.

    Returns:
        The arrays by name, in the order of the file.

    Raises:
        SeveralStateDictsError: if a checkpoint has several state dicts, and no entry chooses one.
        FileNotFoundError: if the file does not exist, or the folder contains no weight file.
        CheckpointError: if the file is empty, of an unknown format, damaged, truncated or ambiguous.
        ValueError: if `format` is unknown.
    """
    path = Path(path)
    if format is not None and format not in _FORMATS:
        raise ValueError(f"unknown weight format {format!r}; choose from {', '.join(FORMATS)}")
    if path.is_dir():
        found, others = find_weights(path) if format != "orbax" else (find_orbax(path) or path, ())
        weights = _read_file(found, "orbax" if found.is_dir() else format, entry)
        if others:
            weights.notes = (f"{found.name} of {path} is read, not {listed(other.name for other in others)}",)
        return weights
    return _read_file(path, format, entry)


def _read_file(path: Path, format: str | None, entry: str | None) -> LazyWeights:
    if format == "orbax":
        return read_orbax(path, entry)
    if not path.is_file():
        raise FileNotFoundError(f"no weight file at {path}: the path does not exist")
    size = path.stat().st_size
    if size == 0:
        raise CheckpointError(f"{path}: the file is empty; download or save it again")
    if (part := describe_part(path.name)) is not None:
        raise CheckpointError(f"{path}: not a weight file. The file is {part}")
    if format is None:
        with path.open("rb") as file:
            head = file.read(1024)
        format = next((name for name, known in _FORMATS.items() if known.matches(head, size)), None)
        if format is None:
            foreign = describe_foreign(path.name, head)
            if foreign is not None:
                raise CheckpointError(f"{path}: not a weight file. The file is {foreign}")
            raise CheckpointError(
                f"{path}: not a weight file of a known format ({', '.join(FORMATS)}). The file begins with "
                f"{head[:16]!r}; check that the download is complete"
            )
    return _FORMATS[format].read(path, entry)
