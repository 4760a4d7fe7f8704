"""The parameters among the arrays that a Flax training script saved. Keys of the tree are joined by `/`."""

import collections
import functools
import re
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from transfer_jax.weights.readers.entries import keys_below, of_optimizer, several, suffixes, unknown_entry
from transfer_jax.weights.readers.lazy_weights import ArrayInfo

_WRAPPERS = ("opt/target/", "params/params/", "params/img/", "params/", "model/")
"""Prefixes of the parameters' keys in files that also hold optimizer state. The first one found is used."""
_SCANNED = re.compile(r"(?<![^/])encoderblock(?=/)")
_MAX_BLOCKS = 1000  # no network has more; the value comes from the file, which may be damaged

Loaders = Mapping[str, Callable[[], np.ndarray]]


def parameter_keys(keys: Iterable[str], entry: str | None = None) -> dict[str, str]:
    """Returns the keys of the parameters in the file, by their names without the common prefix.

    Args:
        keys: all keys of the file.
        entry: the prefix of the keys to take, such as "params/img". None searches for the parameters; ""
            takes all keys.

    Raises:
        SeveralStateDictsError: if the file has the same keys below another prefix, such as `ema_params/`.
        CheckpointError: if no key begins with `entry`.
    """
    keys = list(keys)
    if entry is None:
        entry = next((p for p in _WRAPPERS if any(key.startswith(p) for key in keys)), "")
        _check_alone(keys, entry)
    found = keys_below(keys, entry)
    if keys and not found:
        raise unknown_entry(entry, (), keys)
    return found


def _check_alone(keys: list[str], entry: str) -> None:
    """Raises `SeveralStateDictsError` if another prefix, not of an optimizer, has all keys of an entry."""
    found = keys_below(keys, entry)
    taken = set(found.values())
    counts = collections.Counter(
        prefix
        for key in keys
        if key not in taken and not of_optimizer(key)
        for prefix, name in suffixes(key)
        if name in found
    )
    copies = [prefix.rstrip("/") for prefix, count in counts.items() if count == len(found)]
    if entry and copies:
        raise several({name: {} for name in (entry.rstrip("/"), *copies)})


def split_scanned_blocks(
    loaders: Loaders, infos: Mapping[str, ArrayInfo]
) -> tuple[dict[str, Callable[[], np.ndarray]], dict[str, ArrayInfo]]:
    """Splits arrays that hold a layer of all blocks, `encoderblock/`, into `encoderblock_0/`, …, `_n/`.

    big_vision writes such stacked arrays when it scans over the blocks of a network. Each is read only once.

    Args:
        loaders: a function for each key that reads its array.
        infos: the shape and dtype of each array.

    Returns:
        The loaders and the infos of the split arrays; other arrays are unchanged.
    """
    divided, found = {}, {}
    for key, load in loaders.items():
        shape, dtype = infos[key]
        if not (_SCANNED.search(key) and len(shape) > 1 and shape[0] <= _MAX_BLOCKS):
            divided[key], found[key] = load, infos[key]
            continue
        load = functools.cache(load)
        for index in range(shape[0]):
            name = _SCANNED.sub(rf"\g<0>_{index}", key)
            divided[name], found[name] = functools.partial(_row, load, index), ArrayInfo(shape[1:], dtype)
    return divided, found


def _row(load: Callable[[], np.ndarray], index: int) -> np.ndarray:
    return load()[index, ...]
