"""What the libraries that a weight file can be of call an array, and which way round they lay a kernel."""

import dataclasses
from collections.abc import Callable

import numpy as np

from transfer_jax.models.family import LibraryLayer

OWN = "transfer_jax"
"""The library whose names are our paths, as in the models that we save; every network has it."""


@dataclasses.dataclass(frozen=True)
class Layout:
    """The conventions of a library.

    Attributes:
        leaves: By the name of a layer's array here, its name there.
        norm_leaves: The same for a normalization, where that differs; ours are called `norm…`.
        separator: Between a module and an array, unless the module's name ends in `_`.
        import_kernel: From their kernel to ours, which ends in (in, out).
        export_kernel: `take` turned around.
    """

    leaves: dict[str, str]
    norm_leaves: dict[str, str]
    separator: str
    import_kernel: Callable[[np.ndarray, LibraryLayer], np.ndarray]
    export_kernel: Callable[[np.ndarray, LibraryLayer], np.ndarray]

    def leaf(self, parts: tuple[str, ...]) -> str | None:
        """The name there of the array at the end of a path of ours; None if it is no layer's array."""
        known = self.leaves.get(parts[-1])
        return self.norm_leaves.get(parts[-1], known) if parts[-2].startswith("norm") else known

    def join_key(self, module: str, leaf: str) -> str:
        """A key: the module and its array."""
        return f"{module}{'' if module.endswith('_') else self.separator}{leaf}"


def layout_of(library: str) -> Layout:
    """The layout of a library: PyTorch's, if it has none of its own."""
    return _LAYOUTS.get(library, _TORCH)


def _from_torch(array: np.ndarray, place: LibraryLayer) -> np.ndarray:
    """PyTorch's kernels begin with (out, in)."""
    if place.view is None:
        return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
    height, width, channels = place.view
    theirs = (channels * height * width,) if place.flat else (channels, height, width)
    if array.shape[1:] != theirs:
        return array
    array = array.reshape(len(array), channels, height, width)
    return array.transpose(2, 3, 1, 0).reshape(-1, len(array))


def _to_torch(array: np.ndarray, place: LibraryLayer) -> np.ndarray:
    if place.view is None:
        return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
    array = array.reshape(*place.view, -1).transpose(3, 2, 0, 1)
    return array.reshape(len(array), -1) if place.flat else array


def _from_keras(array: np.ndarray, place: LibraryLayer) -> np.ndarray:
    """Keras's kernels end in (in, out) as ours do; but a depthwise one in (channels, 1)."""
    if place.depthwise:
        return array.swapaxes(2, 3) if array.ndim == 4 else array
    if place.view is None or place.flat:
        return array
    return array.reshape(-1, array.shape[-1]) if array.shape[:-1] == place.view else array


def _to_keras(array: np.ndarray, place: LibraryLayer) -> np.ndarray:
    if place.depthwise:
        return array.swapaxes(2, 3)
    return array if place.view is None or place.flat else array.reshape(*place.view, -1)


def _unchanged(array: np.ndarray, place: LibraryLayer) -> np.ndarray:
    """Flax's kernels are ours."""
    del place
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
