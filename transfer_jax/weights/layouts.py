"""The names of a layer's arrays and the axis order of kernels in each library."""

import dataclasses
from collections.abc import Callable

import numpy as np

from transfer_jax.models.family import LibraryLayer

OWN = "transfer_jax"
"""The library of this package's own names, which saved models use. It is available for every network."""


@dataclasses.dataclass(frozen=True)
class Layout:
    """The conventions of a library.

    Attributes:
        leaves: The library's names of a layer's arrays, by the names in this package.
        norm_leaves: The names that differ in a normalization layer; the names of those layers begin with
            `norm` in this package.
        separator: The text between the names of a module and of an array. It is left out if the name of the
            module ends in `_`.
        import_kernel: A function from the library's kernel to that of this package, which ends in (in, out).
        export_kernel: The inverse of `import_kernel`.
    """

    leaves: dict[str, str]
    norm_leaves: dict[str, str]
    separator: str
    import_kernel: Callable[[np.ndarray, LibraryLayer], np.ndarray]
    export_kernel: Callable[[np.ndarray, LibraryLayer], np.ndarray]

    def leaf(self, parts: tuple[str, ...]) -> str | None:
        """Returns the library's name of the array at the end of a path; None if it is not a layer's array."""
        known = self.leaves.get(parts[-1])
        return self.norm_leaves.get(parts[-1], known) if parts[-2].startswith("norm") else known

    def join_key(self, module: str, leaf: str) -> str:
        """Returns the key of an array of a module."""
        return f"{module}{'' if module.endswith('_') else self.separator}{leaf}"


def layout_of(library: str) -> Layout:
    """Returns the layout of a library: PyTorch's, unless the library has its own."""
    return _LAYOUTS.get(library, _TORCH)


def _from_torch(array: np.ndarray, layer: LibraryLayer) -> np.ndarray:
    """Converts a kernel of PyTorch, which begins with (out, in)."""
    if layer.view is None:
        return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
    height, width, channels = layer.view
    expected = (channels * height * width,) if layer.flat else (channels, height, width)
    if array.shape[1:] != expected:
        return array
    array = array.reshape(len(array), channels, height, width)
    return array.transpose(2, 3, 1, 0).reshape(-1, len(array))


def _to_torch(array: np.ndarray, layer: LibraryLayer) -> np.ndarray:
    if layer.view is None:
        return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
    array = array.reshape(*layer.view, -1).transpose(3, 2, 0, 1)
    return array.reshape(len(array), -1) if layer.flat else array


def _from_keras(array: np.ndarray, layer: LibraryLayer) -> np.ndarray:
    """Converts a kernel of Keras, which ends in (in, out), or in (channels, 1) if it is depthwise."""
    if layer.depthwise:
        return array.swapaxes(2, 3) if array.ndim == 4 else array
    if layer.view is None or layer.flat:
        return array
    return array.reshape(-1, array.shape[-1]) if array.shape[:-1] == layer.view else array


def _to_keras(array: np.ndarray, layer: LibraryLayer) -> np.ndarray:
    if layer.depthwise:
        return array.swapaxes(2, 3)
    return array if layer.view is None or layer.flat else array.reshape(*layer.view, -1)


def _unchanged(array: np.ndarray, layer: LibraryLayer) -> np.ndarray:
    """Returns a kernel of Flax, which has the layout of this package, unchanged."""
    del layer
    return array


_TORCH = Layout(
    leaves={
        "kernel": "weight",
        "scale": "weight",
        "bias": "bias",
        "mean": "running_mean",
        "var": "running_var",
    },
    norm_leaves={},
    separator=".",
    import_kernel=_from_torch,
    export_kernel=_to_torch,
)
_KERAS = Layout(
    leaves={
        "kernel": "kernel",
        "scale": "gamma",
        "bias": "bias",
        "mean": "moving_mean",
        "var": "moving_variance",
    },
    norm_leaves={"bias": "beta"},
    separator="/",
    import_kernel=_from_keras,
    export_kernel=_to_keras,
)
_FLAX = Layout(
    leaves={leaf: leaf for leaf in ("kernel", "scale", "bias", "mean", "var")},
    norm_leaves={},
    separator="/",
    import_kernel=_unchanged,
    export_kernel=_unchanged,
)
_LAYOUTS = {
    "keras": _KERAS,
    "big_transfer": _KERAS,
    "vision_transformer": _FLAX,
    "big_vision": _FLAX,
    OWN: _FLAX,
}
