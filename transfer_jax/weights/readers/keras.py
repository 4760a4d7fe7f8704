"""Keras weights: `.h5`, `.weights.h5` and `.keras`, read without Keras and without executing anything.

Whatever the container, a key is `layer/variable`, as in `block1_conv1/kernel`; a layer inside another stands
behind it, as in `vgg16/block1_conv1/kernel`. A slash in a layer's name becomes `_`, as in Keras 3. The
number of a layer without a name of its own counts all that were made before in the process; here it counts
those of the file.
"""

import functools
import mmap
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from transfer_jax.weights.readers import hdf5, zip_members
from transfer_jax.weights.readers.errors import CheckpointError, error_prefix
from transfer_jax.weights.readers.hdf5 import Hdf5
from transfer_jax.weights.readers.keras_config import Layer, Layers, read_layers
from transfer_jax.weights.readers.lazy_weights import LazyWeights

_WEIGHTS, _CONFIG = "model.weights.h5", "config.json"
_MEMBERS = tuple(name.encode() for name in ("metadata.json", _CONFIG, _WEIGHTS))
_NAME_AT = 30  # where a zip file has the name of its first member
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
"""ConvNeXt's scale, the one variable that Keras gives no name."""
_KERAS1_NAMES = {"W": "kernel", "b": "bias", "running_mean": "moving_mean", "running_std": "moving_variance"}
"""Variables as Keras 1 calls them; files published in its time have them still."""


def is_keras(head: bytes, size: int) -> bool:
    """Whether a file that begins with `head` is HDF5, or a zip file whose first member is one of Keras's."""
    del size
    return head.startswith(hdf5.MAGIC) or (
        head.startswith(zip_members.MAGIC) and head[_NAME_AT:].startswith(_MEMBERS)
    )


def read_keras(path: Path, entry: str | None = None) -> LazyWeights:
    """Reads the names of a model's arrays; an array is read when it is asked for.

    Args:
        path: the file.
        entry: the layer whose arrays to take, such as the network `vgg16` inside of a classifier; None takes
            all.

    Raises:
        ImportError: if h5py is not installed; says how to get it.
        CheckpointError: if the file is damaged or truncated, or its arrays are not simply in it.
    """
    with error_prefix(path), path.open("rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        view, config = memoryview(data), {}
        if data[:4] == zip_members.MAGIC:
            members = zip_members.read_members(file)
            for name in (_WEIGHTS, _CONFIG):
                if name not in members:
                    raise CheckpointError(f"a zip file without the member {name!r} of a Keras model")
            start, stop = zip_members.locate(data, members[_CONFIG])
            config = read_layers(data[start:stop])
            start, stop = zip_members.locate(data, members[_WEIGHTS])
            view = view[start:stop]
        hdf = Hdf5(view)
        arrays: dict[str, Any] = {}
        for key, array in _arrays(hdf, config):
            if key in arrays:
                raise CheckpointError(f"two arrays have the name {key[:200]!r}")
            arrays[key] = array
        arrays = _renumbered(arrays if entry is None else _entry_arrays(arrays, entry))
        if not arrays:
            raise CheckpointError("the file holds no weights of a Keras model")
        infos = {key: hdf.info(key, array) for key, array in arrays.items()}
    loaders = {key: functools.partial(_read, path, hdf, key, array) for key, array in arrays.items()}
    return LazyWeights(path, loaders, infos)


def _read(path: Path, hdf: Hdf5, key: str, array: Any) -> Any:
    with error_prefix(path):
        return hdf.read(key, array)


def _entry_arrays(arrays: dict[str, Any], entry: str) -> dict[str, Any]:
    """The arrays of one layer, by what follows its name."""
    found = {key.removeprefix(f"{entry}/"): a for key, a in arrays.items() if key.startswith(f"{entry}/")}
    if not found:
        nested = dict.fromkeys(key.split("/")[0] for key in arrays if key.count("/") > 1)
        known = f"those with layers inside are {', '.join(nested)}" if nested else "none has layers inside"
        raise CheckpointError(f"the model has no layer {entry!r}; {known}")
    return found


def _renumbered(arrays: dict[str, Any]) -> dict[str, Any]:
    """The arrays with layers without a name of their own, as `conv2d_97`, numbered from 0 for each class."""
    numbers: dict[str, set[int]] = {}
    for key in arrays:
        if found := _AUTOMATIC.match(key):
            numbers.setdefault(found["own"], set()).add(int(found["number"] or 0))
    ranks = {own: {number: rank for rank, number in enumerate(sorted(of))} for own, of in numbers.items()}

    def renumbered(key: re.Match[str]) -> str:
        rank = ranks[key["own"]][int(key["number"] or 0)]
        return f"{key['own']}_{rank}/" if rank else f"{key['own']}/"

    return {_AUTOMATIC.sub(renumbered, key): array for key, array in arrays.items()}


def _arrays(hdf: Hdf5, config: Layers) -> Iterator[tuple[str, Any]]:
    for group in (hdf.root, hdf.child(hdf.root, "model_weights")):
        names = _read_names(hdf, group, "layer_names") if hdf.is_group(group) else None
        if names is not None:
            yield from _legacy_arrays(hdf, group, names)
            return
    yield from _keras3_arrays(hdf, hdf.root, config)


def _legacy_arrays(hdf: Hdf5, group: Any, layers: list[str]) -> Iterator[tuple[str, Any]]:
    """The arrays as `.h5` has them: by the names of layers, and of the variables in each."""
    for layer in layers:
        inside = hdf.find(group, layer)
        names = _read_names(hdf, inside, "weight_names") if hdf.is_group(inside) else None
        if names is None:
            raise CheckpointError(f"the file has nothing of its layer {layer[:200]!r}")
        separable = any("pointwise_kernel" in name for name in names)
        for name in names:
            array = hdf.find(inside, name)
            if array is None or hdf.is_group(array):
                raise CheckpointError(f"the layer {layer[:200]!r} has no array {name[:200]!r}")
            inner = _variable_name(layer, name)
            key = _UNNAMED.sub(r"\1gamma", f"{layer.replace('/', '_')}/{inner}")
            yield key if separable else re.sub(r"/depthwise_kernel$", "/kernel", key), array


def _variable_name(layer: str, name: str) -> str:
    """A variable's name in its layer: without the scopes and the layer in front, and the `:0` behind."""
    name = name.removesuffix(":0")
    scoped = re.search(rf"(?:^|/){re.escape(layer)}(?:_\d+)?/(.+)$", name)
    if scoped:
        return scoped[1]
    if "/" in name or not name.startswith(f"{layer}_"):
        return name
    old = _NUMBERED.sub("", name.removeprefix(f"{layer}_"))
    return _KERAS1_NAMES.get(old, old)


def _read_names(hdf: Hdf5, group: Any, name: str) -> list[str] | None:
    """An attribute's names; where they are many, they are in `name0`, `name1` …."""
    found = hdf.strings(group, name)
    if found is not None:
        return found
    parts = iter(lambda: hdf.strings(group, f"{name}{len(chunks)}"), None)
    chunks: list[list[str]] = []
    for part in parts:
        chunks.append(part)
    return [item for chunk in chunks for item in chunk] if chunks else None


def _keras3_arrays(
    hdf: Hdf5, group: Any, config: Layers, own: str = "", prefix: str = "", depth: int = 0
) -> Iterator[tuple[str, Any]]:
    """The arrays as Keras 3 has them: by the class and number of each layer, mostly with its name variables_group.

    Args:
        hdf: the file.
        group: of a layer, or of the model.
        config: what the model's description says of the layers inside.
        own: the layer's class and number, or the attribute that it is of another layer; "" for the model.
        prefix: the layer's key.
        depth: how many layers it is inside of.
    """
    if depth > _MAX_DEPTH:
        raise CheckpointError(f"layers inside of layers without end, at {prefix[:200]!r}")
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
    """The names of a layer's variables, from its class and number; those of unknown classes are numbers."""
    known = _VARIABLES.get(_NUMBERED.sub("", own), ())
    if known == _NORM and count == 3:  # without a scale, as in Inception
        known = known[1:]
    return known[:count] if count <= len(known) else [str(number) for number in range(count)]
