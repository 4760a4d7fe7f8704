"""The modules of a network in a library of PyTorch, and their arrays in the files of peft."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from transfer_jax.models.adapters.adapter import Adapter
from transfer_jax.models.backbone import Classifier
from transfer_jax.weights.key_mapping import KeyMap, layer_names_of

CONFIG, ARRAYS = "adapter_config.json", "adapter_model.safetensors"
PREFIX, HEAD = "base_model.model.", "head/classifier"
_NOT_TORCH = ("keras", "big_transfer", "big_vision", "vision_transformer", "transfer_jax")


class Module(NamedTuple):
    """A module of the other library, which has some columns of the kernel of a layer here.

    Attributes:
        name: Name of the module.
        start: Its first column.
        width: Number of its columns.
    """

    name: str
    start: int
    width: int


def module_names(
    network: str, library: str, layers: Iterable[str], params: Mapping[str, Any], *, strict: bool = True
) -> dict[str, list[Module]]:
    """Returns the modules of a library for layers of a network."""
    key_map, found = KeyMap(network, library), {}
    for layer in layers:
        path = f"{layer}/kernel"
        keys, outputs = key_map.keys(path), params[path].shape[-1]
        kernel = np.zeros(params[path].shape, np.float32)
        inputs = to_torch(kernel.reshape(-1, outputs), kernel).shape[1:]
        exported = [each.shape for each in key_map.export_array(path, kernel).values()]
        # Other modules are shared by several layers, differ in size, or have another layout.
        if keys and exported == [(outputs // len(keys), *inputs)] * len(keys):
            width = outputs // len(keys)
            found[layer] = [
                Module(key.removesuffix(".weight").removesuffix("weight"), index * width, width)
                for index, key in enumerate(keys)
            ]
        elif strict:
            raise ValueError(f"{library} has no such linear layer or convolution as {layer} of {network}")
    return found


def libraries_of(network: str) -> list[str]:
    """Returns the libraries in PyTorch that have a network."""
    found = [library for library in layer_names_of(network) if library not in _NOT_TORCH]
    if not found:
        raise ValueError(f"no library in PyTorch has the network {network}")
    return found


def only_adapter(model: Classifier, name: str | None) -> Adapter:
    """Returns the adapter of a name, or the only one; `save_peft` describes the errors."""
    known = {each.name: each for each in model.backbone.adapters}
    if name is None and len(known) != 1:
        raise ValueError(f"give the name of the adapter; the model has {', '.join(known) or 'none'}")
    adapter = known.get(next(iter(known)) if name is None else name)
    if adapter is None:
        raise ValueError(f"no adapter {name!r}; the model has {', '.join(known) or 'none'}")
    if not adapter.changes_weights:
        raise ValueError(
            f"peft has no adapters of the kind {adapter.kind} for images; save_adapters writes them"
        )
    return adapter


def parted(key: str) -> tuple[str, str]:
    """Returns the module of an array of peft, and its name there; two empty names for another array."""
    for what in ("lora_A.weight", "lora_B.weight", "lora_magnitude_vector", "ia3_l"):
        if key.endswith(f".{what}"):
            return key.removesuffix(f".{what}"), what
    return "", ""


def overlaps(columns: tuple[tuple[int, int], ...], module: Module) -> Iterator[tuple[int, int, int]]:
    """Yields each part that shares columns with a module: its position, first and last shared column."""
    for index, (start, width) in enumerate(columns):
        low, high = max(start, module.start), min(start + width, module.start + module.width)
        if low < high:
            yield index, low, high


def arrays_of_layer(paths: Iterable[str], layer: str, adapter: Adapter) -> list[str]:
    """Returns the paths of the arrays of an adapter in a layer."""
    return [path for path in paths if path.startswith(f"{layer}/adapters/{adapter.name}/")]


def layer_name(layer: str) -> str:
    """Returns the last part of the path of a layer."""
    return layer.rpartition("/")[2]


def to_torch(matrix: np.ndarray, kernel: Any) -> np.ndarray:
    """Returns a matrix with the inputs of a kernel as a weight of PyTorch."""
    if len(kernel.shape) == 2:
        return matrix.T
    return matrix.reshape(*kernel.shape[:-1], -1).transpose(3, 2, 0, 1)
