"""A reader of Keras weights (`.h5`, `.weights.h5` and `.keras`) that needs no Keras and executes nothing.

The keys are the same for all three formats: `layer/variable`, as in `block1_conv1/kernel`. A nested layer
follows its outer layer, as in `vgg16/block1_conv1/kernel`. A slash in a layer's name becomes `_`, as in Keras
3. Keras numbers layers without a name in the order in which a process creates them; this reader numbers them
from 0 within each file. An HDF5 file without layers of Keras, such as one of PyTorch's arrays, has the paths
of its arrays as keys.
"""

import functools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from transfer_jax.weights.readers import hdf5, zip_members
from transfer_jax.weights.readers.errors import CheckpointError, error_prefix
from transfer_jax.weights.readers.hdf5 import Hdf5, Node
from transfer_jax.weights.readers.keras_config import Layer, Layers, read_layers
from transfer_jax.weights.readers.lazy_weights import LazyWeights
from transfer_jax.weights.readers.memory_map import map_file

_WEIGHTS, _CONFIG = "model.weights.h5", "config.json"
_MEMBERS = tuple(name.encode() for name in ("metadata.json", _CONFIG, _WEIGHTS))
_NAME_AT = 30  # the offset of the first member's name in a zip file, in bytes
_MAX_DEPTH = 32

_NUMBERED = re.compile(r"_\d+$")
_LISTS = ("layers", "_layer_checkpoint_dependencies")  # Keras 3; TensorFlow 2.13 to 2.15
_NOT_WEIGHTS = frozenset(("optimizer", "loss_tracker", "metrics", "_metrics", "compiled_metrics"))
_NORM = ("gamma", "beta", "moving_mean", "moving_variance")
_VARIABLES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        ("conv1d", "conv2d", "conv2d_transpose", "depthwise_conv2d", "dense"), ("kernel", "bias")
    ),
    "separable_conv2d": ("depthwise_kernel", "pointwise_kernel", "bias"),
    "batch_normalization": _NORM,
    "layer_normalization": _NORM[:2],
    "layer_scale": ("gamma",),
    "normalization": ("mean", "variance", "count"),
    "seed_generator": ("seed_generator_state",),
}
"""The variables of layers in the order that Keras 3 numbers them."""
_AUTOMATIC = re.compile(rf"^(?P<own>{'|'.join(_VARIABLES)})(_(?P<number>[1-9]\d{{0,8}}))?/")
_UNNAMED = re.compile(r"(layer_scale/)[Vv]ariable(_\d+)?$")
"""The scale of ConvNeXt, the only variable to which Keras gives no name."""
_KERAS1_NAMES = {"W": "kernel", "b": "bias", "running_mean": "moving_mean", "running_std": "moving_variance"}
"""Names of variables in Keras 1, which files published at that time still use."""


def is_keras(head: bytes, size: int) -> bool:
    """Returns whether a file that begins with `head` is HDF5, or a zip file with a first member of Keras."""
    del size
    return head.startswith(hdf5.MAGIC) or (
        head.startswith(zip_members.MAGIC) and head[_NAME_AT:].startswith(_MEMBERS)
    )


def read_keras(path: Path, entry: str | None = None) -> LazyWeights:
    """Reads the names of a model's arrays. Each array is read on access.

    Args:
        path: the file.
        entry: the layer whose arrays to take, such as the network `vgg16` inside a classifier. None takes the
            arrays of all layers.

    Raises:
        ImportError: if h5py is not installed; the message has the command that installs it.
        CheckpointError: if the file is damaged or truncated, or contains links or compressed arrays.
    """
    with error_prefix(path), path.open("rb") as file:
        data, config = map_file(path), {}
        start, stop = 0, len(data)
        if data[:4] == zip_members.MAGIC:
            members = zip_members.read_members(file)
            for name in (_WEIGHTS, _CONFIG):
                if name not in members:
                    raise CheckpointError(f"not a Keras model: the zip file has no member {name!r}")
            for name in (_CONFIG, _WEIGHTS):
                zip_members.check(data, members[name])
            start, stop = zip_members.locate(data, members[_CONFIG])
            config = read_layers(data[start:stop])
            start, stop = zip_members.locate(data, members[_WEIGHTS])
        hdf = Hdf5(path, data, start, stop)
        arrays: dict[str, Node] = {}
        for key, array in _arrays(hdf, config):
            if key in arrays:
                raise CheckpointError(f"damaged: two arrays have the name {key[:200]!r}")
            arrays[key] = array
        arrays = _renumbered(arrays if entry is None else _entry_arrays(arrays, entry))
        if not arrays:
            raise CheckpointError(
                "the file holds no weights of a Keras model; save it with model.save or model.save_weights"
            )
        infos = {key: hdf.info(key, array) for key, array in arrays.items()}
    loaders = {key: functools.partial(_read, path, hdf, array) for key, array in arrays.items()}
    return LazyWeights(path, loaders, infos)


def _read(path: Path, hdf: Hdf5, array: Node) -> Any:
    with error_prefix(path):
        return hdf.read(array)


def _entry_arrays(arrays: dict[str, Node], entry: str) -> dict[str, Node]:
    """Returns the arrays of one layer, by their keys inside the layer."""
    found = {key.removeprefix(f"{entry}/"): a for key, a in arrays.items() if key.startswith(f"{entry}/")}
    if not found:
        nested = dict.fromkeys(key.split("/")[0] for key in arrays if key.count("/") > 1)
        known = f"layers with nested layers: {', '.join(nested)}" if nested else "no layer has nested layers"
        raise CheckpointError(f"the model has no layer {entry!r}; {known}")
    return found


def _renumbered(arrays: dict[str, Node]) -> dict[str, Node]:
    """Returns the arrays with automatic layer names, such as `conv2d_97`, numbered from 0 for each class."""
    numbers: dict[str, set[int]] = {}
    for key in arrays:
        if found := _AUTOMATIC.match(key):
            numbers.setdefault(found["own"], set()).add(int(found["number"] or 0))
    ranks = {own: {number: rank for rank, number in enumerate(sorted(of))} for own, of in numbers.items()}

    def renumbered(key: re.Match[str]) -> str:
        rank = ranks[key["own"]][int(key["number"] or 0)]
        return f"{key['own']}_{rank}/" if rank else f"{key['own']}/"

    return {_AUTOMATIC.sub(renumbered, key): array for key, array in arrays.items()}


def _arrays(hdf: Hdf5, config: Layers) -> Iterator[tuple[str, Node]]:
    for group in (hdf.root, hdf.child(hdf.root, "model_weights")):
        names = _read_names(hdf, group, "layer_names") if hdf.is_group(group) else None
        if group is not None and names is not None:
            yield from _legacy_arrays(hdf, group, names)
            return
    if any(name in hdf.root["children"] for name in (*_LISTS, *_NOT_WEIGHTS, "vars")):
        yield from _keras3_arrays(hdf, hdf.root, config)
    else:
        found = [*_keras3_arrays(hdf, hdf.root, config)]
        yield from found or _plain_arrays(hdf, hdf.root)


def _plain_arrays(hdf: Hdf5, group: Node, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Node]]:
    """Yields the arrays of a file that Keras did not write, by their paths."""
    if depth > _MAX_DEPTH:
        raise CheckpointError(f"groups are nested more than {_MAX_DEPTH} deep, at {prefix[:200]!r}")
    for name in sorted(group["children"]):
        found = hdf.child(group, name)
        if found is not None and hdf.is_group(found):
            yield from _plain_arrays(hdf, found, f"{prefix}{name}/", depth + 1)
        elif found is not None:
            yield f"{prefix}{name}", found


def _legacy_arrays(hdf: Hdf5, group: Node, layers: list[str]) -> Iterator[tuple[str, Node]]:
    """Yields the arrays of an `.h5` file, which lists its layers, and the variables of each, by name."""
    for layer in layers:
        inside = hdf.find(group, layer)
        names = _read_names(hdf, inside, "weight_names") if hdf.is_group(inside) else None
        if inside is None or names is None:
            raise CheckpointError(
                f"damaged: the file lists the layer {layer[:200]!r} but does not contain it"
            )
        separable = any("pointwise_kernel" in name for name in names)
        for name in names:
            array = hdf.find(inside, name)
            if array is None or hdf.is_group(array):
                raise CheckpointError(f"damaged: the layer {layer[:200]!r} has no array {name[:200]!r}")
            inner = _variable_name(layer, name)
            key = _UNNAMED.sub(r"\1gamma", f"{layer.replace('/', '_')}/{inner}")
            yield key if separable else re.sub(r"/depthwise_kernel$", "/kernel", key), array


def _variable_name(layer: str, name: str) -> str:
    """Returns a variable's name without the scopes and the layer in front of it and the `:0` at its end."""
    name = name.removesuffix(":0")
    scoped = re.search(rf"(?:^|/){re.escape(layer)}(?:_\d+)?/(.+)$", name)
    if scoped:
        return scoped[1]
    if "/" in name or not name.startswith(f"{layer}_"):
        return name
    old = _NUMBERED.sub("", name.removeprefix(f"{layer}_"))
    return _KERAS1_NAMES.get(old, old)


def _read_names(hdf: Hdf5, group: Node, name: str) -> list[str] | None:
    """Returns the names in an attribute, which Keras splits into `name0`, `name1`, … if there are many."""
    found = hdf.strings(group, name)
    if found is not None:
        return found
    parts = iter(lambda: hdf.strings(group, f"{name}{len(chunks)}"), None)
    chunks: list[list[str]] = []
    for part in parts:
        chunks.append(part)
    return [item for chunk in chunks for item in chunk] if chunks else None


def _keras3_arrays(
    hdf: Hdf5, group: Node, config: Layers, own: str = "", prefix: str = "", depth: int = 0
) -> Iterator[tuple[str, Node]]:
    """Yields the arrays of a Keras 3 file, which stores each layer under its class and number.

    Args:
        hdf: the file.
        group: the group of a layer, or of the model.
        config: the nested layers, from the model's description.
        own: the layer's class and number, or the name of the attribute that holds it in another layer; "" for
            the model.
        prefix: the prefix of the layer's keys.
        depth: the number of layers around it.
    """
    if depth > _MAX_DEPTH:
        raise CheckpointError(f"layers are nested more than {_MAX_DEPTH} deep, at {prefix[:200]!r}")
    members = {name: found for name, found in hdf.children(group) if hdf.is_group(found)}
    if own == "" and any(name in members for name in _LISTS):
        members = {name: found for name, found in members.items() if name in _LISTS}
    variables = members.pop("vars", None)
    if variables is not None:
        arrays = [found for _, found in hdf.children(variables) if not hdf.is_group(found)]
        for name, array in zip(_variables(own, len(arrays)), arrays, strict=True):
            yield f"{prefix}{name}", array
    for name, found in members.items():
        for inner, layer in hdf.children(found) if name in _LISTS else ((name, found),):
            if hdf.is_group(layer) and (own or inner not in _NOT_WEIGHTS):
                known = config.get(inner, Layer(inner, {}))
                variables_group = hdf.child(layer, "vars")
                stored = hdf.strings(variables_group, "name") if hdf.is_group(variables_group) else None
                title = (stored[0] if stored else known.name).replace("/", "_")
                yield from _keras3_arrays(hdf, layer, known.inside, inner, f"{prefix}{title}/", depth + 1)


def _variables(own: str, count: int) -> Sequence[str]:
    """Returns the names of a layer's variables, from its class; those of unknown classes are numbers."""
    known = _VARIABLES.get(_NUMBERED.sub("", own), ())
    if known == _NORM and count == 3:  # no scale, as in Inception
        known = known[1:]
    return known[:count] if count <= len(known) else [str(number) for number in range(count)]
