"""Orbax checkpoints: a folder whose `_METADATA` lists the arrays, which TensorStore reads one at a time."""

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
"""How many times the size of the folder its arrays may have together, and how many bytes they always may."""
_ARRAYS = ("jax.Array", "np.ndarray")
_KINDS = frozenset("biufcV")
_TIMEOUT_SECONDS = 300


def find_orbax(folder: Path) -> Path | None:
    """The folder of the arrays: itself, or the only one in it, as `default`, `state` or `params`."""
    if (folder / _METADATA).is_file():
        return folder
    found = sorted(path.parent for path in folder.glob(f"*/{_METADATA}"))
    return found[0] if len(found) == 1 else None


def read_orbax(path: Path, entry: str | None = None) -> LazyWeights:
    """Reads what arrays there are; an array is read when it is asked for.

    Keys are the names along the tree, joined by `/`. Anything but arrays is left out.

    Args:
        path: the folder with `_METADATA`.
        entry: the beginning of the keys to take, such as "params"; None takes those of the parameters, if an
            optimizer's state is there too.

    Raises:
        CheckpointError: if the checkpoint is damaged, incomplete or would grow without measure.
    """
    with error_prefix(path):
        if not (path / _METADATA).is_file():
            raise CheckpointError(f"no checkpoint of Orbax: there is no {_METADATA}")
        if (path / _METADATA).stat().st_size > _MAX_METADATA:
            raise CheckpointError(f"{_METADATA} has more than {_MAX_METADATA} bytes")
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
                raise CheckpointError(f"its arrays take {biggest} bytes, too many for a folder of its size")
            if store.dtype.numpy_dtype.kind not in _KINDS:
                raise CheckpointError(f"array {key[:200]!r} has the unsupported dtype {store.dtype.name}")
            stores[key] = store
    return LazyWeights(
        path,
        {key: functools.partial(_read, path, key, store) for key, store in stores.items()},
        {key: ArrayInfo(tuple(store.shape), store.dtype.name) for key, store in stores.items()},
    )


def _names(metadata: Any) -> dict[str, str]:
    """The stores of the arrays by our keys."""
    match metadata:
        case {"tree_metadata": dict(tree), **_rest}:
            pass
        case _:
            raise CheckpointError(f"damaged: {_METADATA} lists no tree")
    found = {}
    for entry in tree.values():
        match entry:
            case {"key_metadata": [*keys], "value_metadata": {"value_type": str(kind), **_rest}, **_others}:
                parts = [key.get("key") if isinstance(key, dict) else None for key in keys]
            case _:
                raise CheckpointError(f"damaged: {_METADATA} describes an array otherwise than Orbax does")
        if kind not in _ARRAYS:
            continue
        parts = [str(part) if isinstance(part, int) else part for part in parts]
        if not parts or not all(isinstance(part, str) and _is_name(part) for part in parts):
            raise CheckpointError(f"damaged: {_METADATA} names an array {ascii(parts)[:200]}")
        named = [part for part in parts if isinstance(part, str)]
        key = "/".join(named)
        if key in found:
            raise CheckpointError(f"{_METADATA} names the array {key[:200]!r} twice")
        found[key] = ".".join(named)
    if found and all(key.endswith("/value") for key in found):  # variables of Flax NNX
        return {key.removesuffix("/value"): name for key, name in found.items()}
    return found


def _is_name(part: str) -> bool:
    return part not in ("", ".", "..") and not any(sign in part for sign in "/\\\0") and len(part) < 1000


@functools.cache
def _context() -> Any:
    """One thread that reads and one that unpacks, for all arrays: they are asked for one at a time."""
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
        raise CheckpointError(f"array {key[:200]!r} cannot be opened: {str(error)[:300]}") from None


def _read(path: Path, key: str, store: Any) -> np.ndarray:
    with error_prefix(path):
        try:
            return np.asarray(store.read(order="C").result(_TIMEOUT_SECONDS), order="C")
        except (ValueError, OSError, TimeoutError, RuntimeError, MemoryError) as error:
            raise CheckpointError(f"array {key[:200]!r} cannot be read: {str(error)[:300]}") from None
