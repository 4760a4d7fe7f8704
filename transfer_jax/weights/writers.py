"""Writers of weight files in the names, layouts and formats of other libraries."""

import dataclasses
import io
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from safetensors.numpy import save

from transfer_jax.extras import require
from transfer_jax.models.backbone import Classifier
from transfer_jax.models.flat_arrays import split
from transfer_jax.models.preprocessing import Preprocessing
from transfer_jax.models.registry import family_of, variant_of
from transfer_jax.weights.key_mapping import KeyMap, to_library
from transfer_jax.weights.saved_model import SavedModel


@dataclasses.dataclass(frozen=True)
class FileKind:
    """A format of weight files.

    Attributes:
        suffix: The suffix of the file's name.
        write: A function from a model's description, the network, the library and the metadata to the content
            of the file.
        has_metadata: Whether the file stores the metadata.
    """

    suffix: str
    write: Callable[[SavedModel, Classifier, str, Mapping[str, str]], bytes]
    has_metadata: bool = False


def file_kind(library: str) -> FileKind:
    """Returns the format of weight files that a library reads."""
    return _KINDS.get(library, FileKind(".safetensors", _safetensors, has_metadata=True))


def host_arrays(model: Classifier) -> dict[str, np.ndarray]:
    """Returns the parameters and statistics of a network, by path, as NumPy arrays."""
    _, params, stats = split(model)
    return {path: np.asarray(array) for path, array in {**params, **stats}.items()}


def _safetensors(saved: SavedModel, model: Classifier, library: str, metadata: Mapping[str, str]) -> bytes:
    return save(to_library(saved.model, host_arrays(model), library), {"format": "pt", **metadata})


def _npz(saved: SavedModel, model: Classifier, library: str, metadata: Mapping[str, str]) -> bytes:
    content = io.BytesIO()
    arrays = to_library(saved.model, host_arrays(model), library)
    np.savez(content, **arrays)  # pyright: ignore[reportArgumentType]
    return content.getvalue()


def _h5(saved: SavedModel, model: Classifier, library: str, metadata: Mapping[str, str]) -> bytes:
    """Returns the content of a Keras `.h5` file, with the layers in the order of the network.

    Keras matches layers by order, not by name. The names of layers that Keras numbers automatically are
    therefore irrelevant, and a file loads regardless of the layers that the process created before.
    """
    require("h5py")

    import h5py

    key_map = KeyMap(saved.model, library)
    arrays = to_library(saved.model, _in_keras_order(saved.model, model), library)
    normalization_layer = key_map.normalization
    if normalization_layer is not None:
        arrays = {**_normalization(normalization_layer, saved.preprocessing), **arrays}
    layers: dict[str, list[str]] = {}
    for key in arrays:
        layers.setdefault(key.split("/")[0], []).append(key)
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        file.attrs["layer_names"] = _encode_names(layers)
        file.attrs["keras_version"] = b"3.0.0"  # without it, Keras 2 assumes the array order of Keras 1
        for layer, keys in layers.items():
            group = file.create_group(layer)
            group.attrs["weight_names"] = _encode_names(keys)
            for key in keys:
                group[key] = arrays[key]
    return content.getvalue()


def _in_keras_order(name: str, model: Classifier) -> dict[str, np.ndarray]:
    """Returns the arrays in the order of Keras: along the network, the kernel first in each layer."""
    blocks, order, shape = model.backbone.block_names, family_of(name).keras_order, variant_of(name).shape

    def position(path: str) -> tuple[int, tuple, int]:
        parts = tuple(path.split("/"))
        leaf = _LEAVES.index(parts[-1])
        if parts[0] == "head":
            return len(blocks), (parts[1] == "classifier", *parts[2:-1]), leaf
        return blocks.index(parts[1]), order(shape, parts[:-1]), leaf

    arrays = host_arrays(model)
    return {path: arrays[path] for path in sorted(arrays, key=position)}


def _normalization(layer: str, expected: Preprocessing) -> dict[str, np.ndarray]:
    """Returns the arrays of Keras's normalization layer, whose input is in 0..1, for a preprocessing."""
    mean, std = (np.array(values, np.float32) / 255 for values in (expected.mean, expected.std))
    return {f"{layer}/mean": mean, f"{layer}/variance": std * std, f"{layer}/count": np.array(0, np.int32)}


def _encode_names(names: Sequence[str] | dict[str, list[str]]) -> np.ndarray:
    return np.array([name.encode() for name in names])


_LEAVES = ("kernel", "scale", "gamma", "bias", "mean", "var")
_KINDS = {
    "keras": FileKind(".h5", _h5),
    "vision_transformer": FileKind(".npz", _npz),
    "big_vision": FileKind(".npz", _npz),
    "big_transfer": FileKind(".npz", _npz),
}
