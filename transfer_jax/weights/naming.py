"""Turns arrays from another library's names and layouts into ours, and back."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from transfer_jax.models.family import Place
from transfer_jax.models.registry import family_of, variant_of

_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}

BOOKKEEPING = re.compile(r"(num_batches_tracked|relative_position_index|attn_mask|position_ids|mask_token)$")
"""Keys of a file that no forward pass needs: counters, indices, and what only pretraining uses."""


class Naming:
    """How a network's parameters are called in one library whose layouts are PyTorch's.

    Args:
        model: Name of the network.
        library: One of its family's `namings`; None takes the first.

    Raises:
        ValueError: If the family has no such naming.
    """

    def __init__(self, model: str, library: str | None = None) -> None:
        family = family_of(model)
        library = next(iter(family.namings)) if library is None else library
        if library not in family.namings:
            raise ValueError(f"{model} has no names in {library!r}; there are {', '.join(family.namings)}")
        self.library = library
        self._module = family.namings[library]
        self._shape = variant_of(model).shape

    def keys(self, path: str) -> tuple[str, ...]:
        """The keys there of a parameter of ours; none if it has no place there."""
        place, leaf = self._place(path)
        if place is None:
            return ()
        return tuple(module if leaf is None else _joined(module, leaf) for module in place.modules)

    def take(self, path: str, arrays: Sequence[np.ndarray]) -> np.ndarray | None:
        """Our array of a path, from those of its keys; None if their shapes do not fit each other."""
        place, _ = self._place(path)
        assert place is not None
        if path.endswith("/kernel"):
            arrays = [_kernel(array, place) for array in arrays]
        arrays = [np.squeeze(array, _trailing_ones(array, place.trailing)) for array in arrays]
        arrays = [_lead(array, -place.leading) for array in arrays]
        if any(array.shape[:-1] != arrays[0].shape[:-1] for array in arrays):
            return None
        return arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis=-1)

    def give(self, path: str, array: np.ndarray) -> dict[str, np.ndarray]:
        """Their arrays by key, from ours; `take` turned around."""
        place, _ = self._place(path)
        keys = self.keys(path)
        if place is None:
            return {}
        shares = np.cumsum(place.shares or (1,) * len(keys))
        parts = np.split(array, [array.shape[-1] * share // shares[-1] for share in shares[:-1]], axis=-1)
        if path.endswith("/kernel"):
            parts = [_torch_kernel(part, place) for part in parts]
        parts = [_lead(part.reshape(*part.shape, *(1,) * place.trailing), place.leading) for part in parts]
        return {key: np.ascontiguousarray(part) for key, part in zip(keys, parts, strict=True)}

    def _place(self, path: str) -> tuple[Place | None, str | None]:
        parts = tuple(path.split("/"))
        leaf = _LEAVES.get(parts[-1])
        found = self._module(self._shape, parts if leaf is None else parts[:-1])
        return Place((found,)) if isinstance(found, str) else found, leaf


def to_library(model: str, arrays: Mapping[str, Any], library: str | None = None) -> dict[str, np.ndarray]:
    """All arrays of a network in another library's names and layouts.

    Args:
        model: Name of the network.
        arrays: By path, as `functional.split` gives them.
        library: As for `Naming`.

    Raises:
        ValueError: If the family has no such naming, or some array has no place there.
    """
    naming = Naming(model, library)
    homeless = [path for path in arrays if not naming.keys(path)]
    if homeless:
        raise ValueError(f"{naming.library} has no place for {', '.join(homeless[:3])} of {model}")
    return {
        key: theirs
        for path, array in arrays.items()
        for key, theirs in naming.give(path, np.asarray(array)).items()
    }


def detect(model: str, paths: Iterable[str], keys: Iterable[str]) -> Naming:
    """The naming that finds most of a network's parameters among the keys of a file."""
    paths, keys = tuple(paths), frozenset(keys)
    namings = [Naming(model, library) for library in family_of(model).namings]
    return max(namings, key=lambda naming: sum(keys.issuperset(naming.keys(path) or ("",)) for path in paths))


def _trailing_ones(array: np.ndarray, count: int) -> tuple[int, ...]:
    """The last axes of an array, as many as `count`, if they are of size one."""
    axes = tuple(range(array.ndim - count, array.ndim))
    return axes if all(axis >= 0 and array.shape[axis] == 1 for axis in axes) else ()


def _lead(array: np.ndarray, count: int) -> np.ndarray:
    """The array with so many axes of size one ahead, or, below 0, without, if it has them."""
    ahead, behind = (1,) * max(count, 0), array.shape[max(-count, 0) :]
    return array.reshape(*ahead, *behind) if math.prod(behind) == array.size else array


def _joined(module: str, leaf: str) -> str:
    return f"{module}{leaf}" if module.endswith("_") else f"{module}.{leaf}"


def _kernel(array: np.ndarray, place: Place) -> np.ndarray:
    """A kernel that ends in (in, out), from PyTorch's that begins with (out, in)."""
    if place.view is None:
        return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
    height, width, channels = place.view
    theirs = (channels * height * width,) if place.flat else (channels, height, width)
    if array.shape[1:] != theirs:
        return array
    array = array.reshape(len(array), channels, height, width)
    return array.transpose(2, 3, 1, 0).reshape(-1, len(array))


def _torch_kernel(array: np.ndarray, place: Place) -> np.ndarray:
    """`_kernel` turned around."""
    if place.view is None:
        return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
    array = array.reshape(*place.view, -1).transpose(3, 2, 0, 1)
    return array.reshape(len(array), -1) if place.flat else array
