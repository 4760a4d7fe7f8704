"""Reads the arrays of a weight file, whatever its format. Nothing else in the package knows file formats."""

from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import NamedTuple

from transfer_jax.weights.readers.errors import CheckpointError, UnsafeCheckpointError
from transfer_jax.weights.readers.lazy import ArrayInfo, LazyWeights
from transfer_jax.weights.readers.npz import is_npz, read_npz
from transfer_jax.weights.readers.safetensors import is_safetensors, read_safetensors
from transfer_jax.weights.readers.torch import is_torch, read_torch

__all__ = ["FORMATS", "ArrayInfo", "CheckpointError", "LazyWeights", "UnsafeCheckpointError", "read_weights"]


class _Format(NamedTuple):
    matches: Callable[[bytes, int], bool]  # of the file's first bytes and its size
    read: Callable[[Path, str | None], LazyWeights]


# To add a format, add a line: the first that matches is taken.
_FORMATS = {
    "safetensors": _Format(is_safetensors, read_safetensors),
    "npz": _Format(is_npz, read_npz),
    "torch": _Format(is_torch, read_torch),
}

FORMATS: tuple[str, ...] = tuple(_FORMATS)
"""The names of the formats that `read_weights` knows."""


def read_weights(
    path: str | PathLike[str], format: str | None = None, *, entry: str | None = None
) -> LazyWeights:
    """Opens a weight file as a read-only mapping of names to arrays, each read when it is asked for.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> from safetensors.numpy import save_file
        >>> with TemporaryDirectory() as folder:
        ...     save_file({"stem.weight": np.zeros((8, 3, 3, 3))}, Path(folder) / "weights")
        ...     read_weights(Path(folder) / "weights")["stem.weight"].shape
        (8, 3, 3, 3)

    Args:
        path: the file. Its extension means nothing.
        format: one of `FORMATS`, or None to recognize it by the file's first bytes.
        entry: which of several state dicts in a PyTorch checkpoint to take, such as "model_ema".

    Raises:
        FileNotFoundError: if there is no such file.
        UnsafeCheckpointError: if a pickle in it asks for more than rebuilding tensors; nothing was executed.
        CheckpointError: if it is empty, of an unknown format, damaged, truncated or ambiguous.
        ValueError: if `format` is not a known one.
    """
    path = Path(path)
    if format is not None and format not in _FORMATS:
        raise ValueError(f"unknown weight format {format!r}; known are {', '.join(FORMATS)}")
    if not path.is_file():
        raise FileNotFoundError(f"no weight file at {path}")
    size = path.stat().st_size
    if size == 0:
        raise CheckpointError(f"{path}: the file is empty")
    if format is None:
        with path.open("rb") as file:
            head = file.read(1024)
        format = next((name for name, known in _FORMATS.items() if known.matches(head, size)), None)
        if format is None:
            raise CheckpointError(
                f"{path}: not a weight file of a known format ({', '.join(FORMATS)}); "
                f"it begins with {head[:16]!r}"
            )
    return _FORMATS[format].read(path, entry)
