"""safetensors files, through the package of that name."""

import functools
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  (registers bfloat16 with numpy)
import numpy as np
from safetensors import SafetensorError, safe_open

from transfer_jax.weights.readers.errors import CheckpointError, naming
from transfer_jax.weights.readers.lazy import ArrayInfo, LazyWeights

_MAX_HEADER = 100_000_000  # the format's own limit
_DTYPES = frozenset(
    ("F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL")
)


def is_safetensors(head: bytes, size: int) -> bool:
    """Whether a file of `size` bytes begins, in `head`, with the length of a JSON header and a brace."""
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= min(size - 8, _MAX_HEADER)


def read_safetensors(path: Path, entry: str | None = None) -> LazyWeights:
    """Reads the header of a safetensors file; arrays are read when asked for.

    Args:
        path: the file.
        entry: must be None: the format has a single dictionary.

    Raises:
        CheckpointError: if the file is damaged, or has a dtype that numpy lacks.
    """
    with naming(path):
        if entry is not None:
            raise CheckpointError(f"a safetensors file has no entries, so {entry!r} cannot be chosen")
        try:
            file: Any = safe_open(str(path), framework="numpy")
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            infos = {
                name: ArrayInfo(tuple(found.get_shape()), found.get_dtype()) for name, found in slices.items()
            }
        except (SafetensorError, ValueError, OSError) as error:
            raise CheckpointError(f"damaged or truncated safetensors file: {error}") from error
        for name, info in infos.items():
            if info.dtype not in _DTYPES:
                raise CheckpointError(f"tensor {name!r} has the unsupported dtype {info.dtype}")
    return LazyWeights(path, {name: functools.partial(_read, file, path, name) for name in infos}, infos)


def _read(file: Any, path: Path, name: str) -> np.ndarray:
    with naming(path):
        try:
            return file.get_tensor(name)
        except (SafetensorError, ValueError, OSError) as error:
            raise CheckpointError(f"tensor {name!r} cannot be read: {error}") from error
