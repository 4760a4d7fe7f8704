"""Conversion of arrays between the names and layouts of another library and those of this package."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from transfer_jax.models import family
from transfer_jax.models.family import LibraryLayer
from transfer_jax.models.registry import family_of, variant_of
from transfer_jax.weights.layouts import OWN, layout_of

BOOKKEEPING = re.compile(
    r"(num_batches_tracked|relative_position_index|relative_coords_table|attn_mask|position_ids|mask_token|seed_generator_state|total_ops|total_params|n_averaged)$"
    r"|(^|/)normalization(_\d+)?/(mean|variance|count)$"
)
"""Keys of a file that no forward pass needs: counters (of profilers, too), indices, parameters that only
pretraining uses, and Keras's normalization of images, which is part of the spec in this package."""


class KeyMap:
    """The keys and the array layouts of a network's parameters in one library.

    Args:
        model: Name of the network.
        library: A key of `layer_names_of(model)`; None takes the first.
        shape: Shape of the network, if it is not that of the variant.

    Raises:
        ValueError: If the network is not known in that library.
    """

    def __init__(self, model: str, library: str | None = None, *, shape: Any = None) -> None:
        tables = layer_names_of(model)
        library = next(iter(tables)) if library is None else library
        if library not in tables:
            raise ValueError(f"{model} has no names in {library!r}; choose from {', '.join(tables)}")
        self.library = library
        self._module = tables[library]
        self._layout = layout_of(library)
        self._shape = variant_of(model).shape if shape is None else shape

    def keys(self, path: str) -> tuple[str, ...]:
        """Returns the library's keys for a parameter of this package; none if the library lacks it."""
        layer, leaf = self._layer(path)
        if layer is None:
            return ()
        return tuple(
            module if leaf is None else self._layout.join_key(module, leaf) for module in layer.modules
        )

    @property
    def normalization(self) -> str | None:
        """The library's layer that normalizes the images inside the network; None if there is none."""
        found = self._module(self._shape, ("pixels",))
        return found if isinstance(found, str) else None

    def parts(self, path: str) -> int:
        """Returns the number of equal parts of the library's array of which a parameter here is one."""
        layer, _ = self._layer(path)
        return layer.part[1] if layer and layer.part else 1

    def import_array(self, path: str, arrays: Sequence[np.ndarray]) -> np.ndarray | None:
        """Returns the array of a parameter of this package from the library's arrays.

        Args:
            path: The path of the parameter.
            arrays: The library's arrays, in the order of `keys(path)`.

        Returns:
            The array, or None if the shapes of the library's arrays do not match each other.
        """
        layer, _ = self._layer(path)
        assert layer is not None
        arrays = [_merge_heads(array, path, layer) for array in arrays]
        if path.endswith("/kernel"):
            arrays = [self._layout.import_kernel(array, layer) for array in arrays]
        arrays = [np.squeeze(array, _trailing_ones(array, layer.trailing)) for array in arrays]
        arrays = [_merge_grid(_change_leading_axes(array, -layer.leading), layer.grid) for array in arrays]
        if any(array.shape[:-1] != arrays[0].shape[:-1] for array in arrays):
            return None
        if layer.part is not None:
            index, count = layer.part
            length = arrays[0].shape[-1] // count
            return arrays[0][..., index * length : (index + 1) * length]
        return arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis=-1)

    def export_array(self, path: str, array: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the library's arrays by key for a parameter: the inverse of `import_array`."""
        layer, _ = self._layer(path)
        keys = self.keys(path)
        if layer is None:
            return {}
        if layer.part is not None:
            index, count = layer.part
            padded = np.zeros((*array.shape[:-1], count, array.shape[-1]), array.dtype)
            padded[..., index, :] = array
            array = padded.reshape(*array.shape[:-1], -1)
        ends = np.cumsum(layer.sizes or (1,) * len(keys))
        parts = np.split(array, [array.shape[-1] * end // ends[-1] for end in ends[:-1]], axis=-1)
        if path.endswith("/kernel"):
            parts = [self._layout.export_kernel(part, layer) for part in parts]
        parts = [
            _change_leading_axes(part.reshape(*part.shape, *(1,) * layer.trailing), layer.leading)
            for part in parts
        ]
        parts = [_split_grid(_split_heads(part, path, layer), layer.grid) for part in parts]
        return {key: np.ascontiguousarray(part) for key, part in zip(keys, parts, strict=True)}

    def _layer(self, path: str) -> tuple[LibraryLayer | None, str | None]:
        parts = tuple(path.split("/"))
        leaf = self._layout.leaf(parts)
        found = self._module(self._shape, parts if leaf is None else parts[:-1])
        return LibraryLayer((found,)) if isinstance(found, str) else found, leaf


def layer_names_of(model: str) -> Mapping[str, family.LayerNames]:
    """Returns the names of a network's layers by library, those of this package included."""
    return {**family_of(model).layer_names, OWN: lambda shape, path: "/".join(path)}


def to_library(model: str, arrays: Mapping[str, Any], library: str | None = None) -> dict[str, np.ndarray]:
    """Returns all arrays of a network in another library's names and layouts.

    Args:
        model: Name of the network.
        arrays: The arrays by path, as `flat_arrays.split` returns them.
        library: As for `KeyMap`.

    Raises:
        ValueError: If the network is not known in the library, or if the library lacks an array.
    """
    key_map = KeyMap(model, library)
    unmapped = [path for path in arrays if not key_map.keys(path)]
    if unmapped:
        raise ValueError(f"{key_map.library} has no parameter for {', '.join(unmapped[:3])} of {model}")
    found: dict[str, np.ndarray] = {}
    for path, array in arrays.items():
        for key, converted in key_map.export_array(path, np.asarray(array)).items():
            # Arrays that are parts of one array are zero elsewhere.
            found[key] = found[key] + converted if key in found else converted
    return found


def _trailing_ones(array: np.ndarray, count: int) -> tuple[int, ...]:
    """Returns the last `count` axes of an array if all have size one, else no axes."""
    axes = tuple(range(array.ndim - count, array.ndim))
    return axes if all(axis >= 0 and array.shape[axis] == 1 for axis in axes) else ()


def _change_leading_axes(array: np.ndarray, count: int) -> np.ndarray:
    """Returns the array with `count` leading axes of size one added, or, if `count` is negative, removed."""
    if not count:
        return array
    ahead, behind = (1,) * max(count, 0), array.shape[max(-count, 0) :]
    return array.reshape(*ahead, *behind) if math.prod(behind) == array.size else array


def _merge_grid(array: np.ndarray, side: int) -> np.ndarray:
    """Returns an array `(…, side, side, channels)` with one axis for the grid; others unchanged."""
    return array.reshape(*array.shape[:-3], -1, array.shape[-1]) if side and array.ndim > 3 else array


def _split_grid(array: np.ndarray, side: int) -> np.ndarray:
    """Returns an array `(…, side x side, channels)` with two axes for the grid; see `_merge_grid`."""
    return array.reshape(*array.shape[:-2], side, side, array.shape[-1]) if side else array


def _merge_heads(array: np.ndarray, path: str, layer: LibraryLayer) -> np.ndarray:
    """Returns an attention array without a separate axis for the heads."""
    leaf = path.rpartition("/")[2]
    if not layer.heads or array.ndim != 2 + (leaf == "kernel") - (leaf == "bias" and layer.of_inputs):
        return array
    if leaf == "bias":
        return array if layer.of_inputs else array.reshape(-1)
    return array.reshape(-1, array.shape[-1]) if layer.of_inputs else array.reshape(len(array), -1)


def _split_heads(array: np.ndarray, path: str, layer: LibraryLayer) -> np.ndarray:
    """Returns an attention array with a separate axis for the heads: the inverse of `_merge_heads`."""
    if not layer.heads or (path.endswith("/bias") and layer.of_inputs):
        return array
    if layer.of_inputs:
        return array.reshape(layer.heads, -1, array.shape[-1])
    return array.reshape(*array.shape[:-1], layer.heads, -1)
