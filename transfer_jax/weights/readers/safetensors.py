"""A reader of safetensors files. The package `safetensors` checks them; arrays are views of the file."""

import functools
import json
import mmap
from pathlib import Path
from typing import Any, NoReturn

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from transfer_jax.weights.readers.errors import CheckpointError, error_prefix
from transfer_jax.weights.readers.lazy_weights import ArrayInfo, LazyWeights
from transfer_jax.weights.readers.memory_map import map_file, release, view

_MAX_HEADER = 100_000_000  # the limit of the format
_MAX_DIMENSIONS = 32
_DTYPES: dict[str, np.dtype[Any]] = {
    **{f"F{bits}": np.dtype(f"float{bits}") for bits in (64, 32, 16)},
    **{f"I{bits}": np.dtype(f"int{bits}") for bits in (64, 32, 16, 8)},
    **{f"U{bits}": np.dtype(f"uint{bits}") for bits in (64, 32, 16, 8)},
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "BOOL": np.dtype(np.bool_),
}


def is_safetensors(head: bytes, size: int) -> bool:
    """Returns whether a file of `size` bytes that begins with `head` has the length of a header and `{`."""
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= min(size - 8, _MAX_HEADER)


def read_safetensors(path: Path, entry: str | None = None) -> LazyWeights:
    """Reads the header of a safetensors file. Each array is read on access.

    Args:
        path: the file.
        entry: the prefix of the keys to take, such as "teacher". None takes all arrays.

    Raises:
        CheckpointError: if the file is damaged, names an array twice, or has a dtype that NumPy lacks.
    """
    with error_prefix(path):
        data = map_file(path)
        length = int.from_bytes(data[:8], "little")
        if not 0 < length <= min(len(data) - 8, _MAX_HEADER):
            raise CheckpointError(
                f"damaged or truncated safetensors file: a header of {length} bytes in a file of {len(data)}"
            )
        try:  # checks that the arrays' ranges do not overlap and leave no gaps
            file: Any = safe_open(str(path), framework="numpy")
            names = set(file.keys())
            metadata = file.metadata() or {}
        except (SafetensorError, ValueError, OSError) as error:
            raise CheckpointError(f"damaged or truncated safetensors file: {error}") from error
        header: dict[str, Any] = parse_json(data[8 : 8 + length])
        header.pop("__metadata__", None)
        if set(header) != names:
            raise CheckpointError("damaged safetensors file: two parsers read different names in its header")
        for name, described in header.items():
            if described["dtype"] not in _DTYPES:
                raise CheckpointError(
                    f"tensor {name[:200]!r} has the unsupported dtype {described['dtype']}; "
                    f"supported are {', '.join(_DTYPES)}"
                )
            if len(described["shape"]) > _MAX_DIMENSIONS or max(described["shape"], default=0) > len(data):
                raise CheckpointError(
                    f"damaged: tensor {name[:200]!r} has more than {_MAX_DIMENSIONS} dimensions, or one that "
                    "is larger than the file"
                )
    in_order = dict(sorted(header.items(), key=lambda item: item[1]["data_offsets"]))
    dtypes = {name: _DTYPES[described["dtype"]] for name, described in in_order.items()}
    shapes = {name: tuple(described["shape"]) for name, described in in_order.items()}
    starts = {name: 8 + length + described["data_offsets"][0] for name, described in in_order.items()}
    weights = LazyWeights(
        path,
        {name: functools.partial(_read, data, starts[name], shapes[name], dtypes[name]) for name in in_order},
        {name: ArrayInfo(shapes[name], described["dtype"]) for name, described in in_order.items()},
    )
    weights.metadata = metadata
    with error_prefix(path):
        return weights.below(entry)


def parse_json(raw: bytes) -> Any:
    """Returns the value of a JSON text in which no object has a key twice.

    Raises:
        CheckpointError: if the JSON is invalid or an object has a key twice.
    """
    try:
        return json.loads(raw, object_pairs_hook=_unique_keys, parse_constant=_reject_constant)
    except (ValueError, RecursionError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"damaged: invalid JSON: {type(error).__name__}") from None


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise CheckpointError(f"damaged: the file names {twice[:200]!r} twice")
    return found


def _reject_constant(constant: str) -> NoReturn:
    raise CheckpointError(f"damaged: {constant} is not valid in JSON")


def _read(data: mmap.mmap, start: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    release(data)
    return view(data, start, shape, dtype)
