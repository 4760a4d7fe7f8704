"""A reader of Orbax checkpoints: folders with a file `_METADATA` that lists the arrays."""

import functools
import math
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  (registers bfloat16 with numpy)
import numpy as np

from transfer_jax.malloc import share_freed_memory
from transfer_jax.weights.readers.errors import CheckpointError, error_prefix
from transfer_jax.weights.readers.flax_tree import parameter_keys
from transfer_jax.weights.readers.lazy_weights import ArrayInfo, LazyWeights
from transfer_jax.weights.readers.safetensors import parse_json

_METADATA = "_METADATA"
_MAX_METADATA = 64_000_000
_MAX_DIMENSIONS = 32
_MAX_RATIO, _SMALL = 100, 1 << 20
"""The arrays together may have `_MAX_RATIO` times the folder's size plus `_SMALL` bytes."""
_ARRAYS = ("jax.Array", "np.ndarray")
_KINDS = frozenset("biufcV")
_TIMEOUT_SECONDS = 300


def find_orbax(folder: Path) -> Path | None:
    """Returns `folder` or its only subfolder with `_METADATA`, such as `default` or `params`; else None."""
    if (folder / _METADATA).is_file():
        return folder
    found = sorted(path.parent for path in folder.glob(f"*/{_METADATA}"))
    return found[0] if len(found) == 1 else None


def read_orbax(path: Path, entry: str | None = None) -> LazyWeights:
    """Reads the names, shapes and dtypes of the arrays. Each array is read on access, by TensorStore.

    Keys are the names along the tree, joined by `/`. Leaves that are not arrays are ignored.

    Args:
        path: the folder with `_METADATA`.
        entry: the prefix of the keys to take, such as "params". None takes the parameters only, if the
            checkpoint also holds the state of an optimizer.

    Raises:
        CheckpointError: if the checkpoint is damaged or incomplete, or if its arrays are far larger than the
            folder.
    """
    with error_prefix(path):
        if not (path / _METADATA).is_file():
            raise CheckpointError(f"not an Orbax checkpoint: the folder has no file {_METADATA}")
        if (path / _METADATA).stat().st_size > _MAX_METADATA:
            raise CheckpointError(f"refused: {_METADATA} has more than {_MAX_METADATA} bytes")
        metadata = parse_json((path / _METADATA).read_bytes())
        names = _names(metadata)
        names = {key: names[full] for key, full in parameter_keys(names, entry).items()}
        if not names:
            raise CheckpointError("the checkpoint holds no arrays")
        limit = _MAX_RATIO * sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) + _SMALL
        stores, total = {}, 0
        for key, name in names.items():
            store = _open(path, metadata, name, key)
            chunk = store.chunk_layout.read_chunk.shape or ()
            total += math.prod(store.shape) * store.dtype.numpy_dtype.itemsize
            biggest = max(total, math.prod(chunk) * store.dtype.numpy_dtype.itemsize)
            if biggest > limit or len(store.shape) > _MAX_DIMENSIONS:
                raise CheckpointError(
                    f"refused: the arrays take {biggest} bytes, too many for a folder of its size"
                )
            if store.dtype.numpy_dtype.kind not in _KINDS:
                raise CheckpointError(
                    f"array {key[:200]!r} has the unsupported dtype {store.dtype.name}; "
                    "only numbers are supported"
                )
            stores[key] = store
    return LazyWeights(
        path,
        {key: functools.partial(_read, path, key, store) for key, store in stores.items()},
        {key: ArrayInfo(tuple(store.shape), store.dtype.name) for key, store in stores.items()},
    )


def _names(metadata: Any) -> dict[str, str]:
    """Returns the names of the arrays' stores by the keys joined by `/`."""
    match metadata:
        case {"tree_metadata": dict(tree), **_rest}:
            pass
        case _:
            raise CheckpointError(f"damaged: {_METADATA} has no tree_metadata")
    found = {}
    for entry in tree.values():
        match entry:
            case {"key_metadata": [*keys], "value_metadata": {"value_type": str(kind), **_rest}, **_others}:
                parts = [key.get("key") if isinstance(key, dict) else None for key in keys]
            case _:
                raise CheckpointError(f"damaged: {_METADATA} has an invalid description of an array")
        if kind not in _ARRAYS:
            continue
        parts = [str(part) if isinstance(part, int) else part for part in parts]
        if not parts or not all(isinstance(part, str) and _is_name(part) for part in parts):
            raise CheckpointError(
                f"damaged: {_METADATA} has an invalid name of an array: {ascii(parts)[:200]}"
            )
        named = [part for part in parts if isinstance(part, str)]
        key = "/".join(named)
        if key in found:
            raise CheckpointError(f"damaged: {_METADATA} names the array {key[:200]!r} twice")
        found[key] = ".".join(named)
    if found and all(key.endswith("/value") for key in found):  # variables of Flax NNX
        return {key.removesuffix("/value"): name for key, name in found.items()}
    return found


def _is_name(part: str) -> bool:
    return part not in ("", ".", "..") and not any(sign in part for sign in "/\\\0") and len(part) < 1000


@functools.cache
def _context() -> Any:
    """Returns a context with one thread that reads and one that decompresses: arrays are read one by one."""
    import tensorstore

    share_freed_memory()
    return tensorstore.Context({"file_io_concurrency": {"limit": 1}, "data_copy_concurrency": {"limit": 1}})


def _open(path: Path, metadata: dict[str, Any], name: str, key: str) -> Any:
    import tensorstore

    folder = path.resolve().as_posix()
    if metadata.get("use_ocdbt"):
        store = {"driver": "ocdbt", "base": f"file://{folder}/", "path": f"{name}/"}
    else:
        store = {"driver": "file", "path": f"{folder}/{name}/"}
    spec = {
        "driver": "zarr3" if metadata.get("use_zarr3") else "zarr",
        "kvstore": store,
        "recheck_cached_data": False,
    }
    try:
        return tensorstore.open(spec, open=True, read=True, context=_context()).result(_TIMEOUT_SECONDS)
    except (ValueError, OSError, TimeoutError, RuntimeError, TypeError) as error:
        raise CheckpointError(
            f"damaged or incomplete: opening array {key[:200]!r} failed: {str(error)[:300]}"
        ) from None


def _read(path: Path, key: str, store: Any) -> np.ndarray:
    with error_prefix(path):
        try:
            return np.asarray(store.read(order="C").result(_TIMEOUT_SECONDS), order="C")
        except (ValueError, OSError, TimeoutError, RuntimeError, MemoryError) as error:
            raise CheckpointError(
                f"damaged or incomplete: reading array {key[:200]!r} failed: {str(error)[:300]}"
            ) from None
