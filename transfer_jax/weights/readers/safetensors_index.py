"""A reader of weights in several files, listed in an index such as `model.safetensors.index.json`."""

import functools
from pathlib import Path

import numpy as np

from transfer_jax.weights.readers.errors import CheckpointError, error_prefix
from transfer_jax.weights.readers.lazy_weights import LazyWeights
from transfer_jax.weights.readers.safetensors import is_safetensors, parse_json, read_safetensors
from transfer_jax.weights.readers.torch import is_torch, read_torch

_MAX_INDEX = 100_000_000
_MAX_SHARDS = 10_000


def is_index(head: bytes, size: int) -> bool:
    """Returns whether a file of `size` bytes that begins with `head` is a JSON object."""
    return head.lstrip().startswith(b"{") and size <= _MAX_INDEX


def read_index(path: Path, entry: str | None = None) -> LazyWeights:
    """Reads the index and the headers of the files it names. Each array is read on access.

    Args:
        path: the index. The files are in the same folder.
        entry: the prefix of the keys to take, such as "teacher". None takes all arrays.

    Raises:
        CheckpointError: if the index is damaged, names a file in another folder, or does not match the files.
    """
    with error_prefix(path):
        if path.stat().st_size > _MAX_INDEX:
            raise CheckpointError(f"refused: the index has more than {_MAX_INDEX} bytes")
        index = parse_json(path.read_bytes())
        places = index.get("weight_map") if isinstance(index, dict) else None
        if not (isinstance(places, dict) and places and all(isinstance(p, str) for p in places.values())):
            raise CheckpointError("not an index of weight files: weight_map must name a file for each key")
        names = dict.fromkeys(places.values())
        if len(names) > _MAX_SHARDS:
            raise CheckpointError(f"the index names {len(names)} files, more than the {_MAX_SHARDS} allowed")
        for name in names:
            if name in ("", ".", "..") or any(sign in name for sign in "/\\:\0") or len(name) > 255:
                raise CheckpointError(
                    f"refused: the index names the file {name[:200]!r}, which is not in the index's folder"
                )
            if not (path.parent / name).is_file():
                raise CheckpointError(
                    f"the index names the file {name!r}, which is missing; download it into the same folder"
                )
    shards = {name: _open(path.parent / name) for name in names}
    with error_prefix(path):
        for key, name in places.items():
            if key not in shards[name]:
                raise CheckpointError(
                    f"damaged: according to the index, {key[:200]!r} is in {name!r}, but that file lacks it"
                )
        for name, shard in shards.items():
            for key in shard:
                if key not in places:
                    raise CheckpointError(
                        f"damaged: {name!r} has {key[:200]!r}, which the index does not name"
                    )
                if places[key] != name:
                    raise CheckpointError(
                        f"damaged: {key[:200]!r} is both in {name!r} and in {places[key]!r}"
                    )
    infos = {key: shards[name].infos[key] for key, name in places.items()}
    weights = LazyWeights(
        path, {key: functools.partial(_read, shards[name], key) for key, name in places.items()}, infos
    )
    with error_prefix(path):
        return weights.below(entry)


def _open(shard: Path) -> LazyWeights:
    with shard.open("rb") as file:
        head = file.read(9)
    size = shard.stat().st_size
    return (
        read_torch(shard)
        if is_torch(head, size) and not is_safetensors(head, size)
        else read_safetensors(shard)
    )


def _read(shard: LazyWeights, key: str) -> np.ndarray:
    return shard[key]
