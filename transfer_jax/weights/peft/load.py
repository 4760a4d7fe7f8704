"""Reads adapters that peft wrote."""

import collections
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from transfer_jax.models.adapters.adapter import Adapter, Dora, Ia3, Lora, adapter_paths
from transfer_jax.models.adapters.install import install
from transfer_jax.models.adapters.kernel_rules import columns_of
from transfer_jax.models.backbone import Classifier
from transfer_jax.models.flat_arrays import split, update
from transfer_jax.weights.adapter_files import fill
from transfer_jax.weights.key_mapping import KeyMap
from transfer_jax.weights.peft.modules import (
    ARRAYS,
    CONFIG,
    HEAD,
    PREFIX,
    Module,
    arrays_of_layer,
    layer_name,
    libraries_of,
    module_names,
    parted,
)
from transfer_jax.weights.readers import CheckpointError, read_weights


def load_peft(
    model: Classifier,
    network: str,
    folder: str | Path,
    *,
    library: str | None = None,
    name: str | None = None,
) -> None:
    """Adds an adapter of peft to a model in place, with its head if it has one of the same classes.

    Args:
        model: The model, with the weights that the adapter was trained on.
        network: Name of the network.
        folder: The folder with `adapter_config.json` and `adapter_model.safetensors`.
        library: The library of the network that peft wrapped; None finds it.
        name: Name of the adapter here; None takes that of its kind.

    Raises:
        FileNotFoundError: If a file is missing.
        CheckpointError: If the files contradict each other or do not fit the network.
        ValueError: If the kind of adapter is unsupported, or the model has an adapter of that name.
    """
    folder, (_, params, _) = Path(folder), split(model)
    for file in (CONFIG, ARRAYS):
        if not (folder / file).is_file():
            raise FileNotFoundError(f"no adapter of peft in {folder}: there is no {file}")
    try:
        config = json.loads((folder / CONFIG).read_bytes())
        kind = str(config["peft_type"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{folder / CONFIG} is damaged: {error}") from None
    if kind not in ("LORA", "IA3"):
        raise ValueError(
            f"adapters of the kind {kind} are unsupported; LORA (with DoRA) and IA3 are supported"
        )
    if config.get("bias", "none") != "none" or config.get("lora_bias"):
        raise ValueError(f"{folder} trains biases too, which is unsupported")
    found: dict[str, dict[str, np.ndarray]] = collections.defaultdict(dict)
    rest: dict[str, np.ndarray] = {}
    for key, array in read_weights(folder / ARRAYS).items():
        module, what = parted(key.removeprefix(PREFIX))
        (found[module] if what else rest)[what or key.removeprefix(PREFIX)] = np.asarray(array, np.float32)
    kernels = [
        p.removesuffix("/kernel") for p in params if p.startswith("backbone/") and p.endswith("/kernel")
    ]
    known: set[str] = set()
    for each in [library] if library else libraries_of(network):
        layers = module_names(network, each, kernels, params, strict=False)
        known = {module.name for modules in layers.values() for module in modules}
        if {*found} <= known:
            library = each
            break
    else:
        missing = sorted({*found} - known)
        raise CheckpointError(f"{folder} adapts {', '.join(missing[:3])}, which {network} does not have")
    used = {layer: mods for layer, mods in layers.items() if any(m.name in found for m in mods)}
    adapter = _imported_adapter(config, used, found, name)
    install(model, adapter)
    _, params, _ = split(model)
    arrays = {path: np.array(params[path]) for path in adapter_paths(params, [adapter.name])}
    for layer, modules in used.items():
        here = {path.rpartition("/")[2]: arrays[path] for path in arrays_of_layer(arrays, layer, adapter)}
        for module in modules:
            _import(adapter, config, layer, module, found.get(module.name, {}), here)
    fill(model, arrays, adapter.name, folder)
    _import_head(model, network, str(library), rest)


def _import(
    adapter: Adapter,
    config: Mapping[str, Any],
    layer: str,
    module: Module,
    found: Mapping[str, np.ndarray],
    here: dict[str, np.ndarray],
) -> None:
    """Writes the arrays of peft for one module into those of its layer here."""
    if isinstance(adapter, Ia3):
        _import_factors(layer, module, found.get("ia3_l"), here["factors"], config)
        return
    assert isinstance(adapter, Lora)
    columns = columns_of(
        layer_name(layer), module.width if not adapter.parts else 3 * module.width, adapter.parts
    )
    matching = [
        index for index, (start, _) in enumerate(columns) if start == module.start or not adapter.parts
    ]
    if not found:
        for index in matching:
            here["b"][index] = 0
        return
    (index,) = matching
    rank, scale = _scale(config, module.name)
    down, up = found["lora_A.weight"], found["lora_B.weight"]
    here["a"][index] = here["b"][index] = 0
    down = down.transpose(2, 3, 1, 0).reshape(-1, rank) if down.ndim == 4 else down.T
    here["a"][index][:, :rank] = down
    here["b"][index][:rank] = up.reshape(len(up), -1).T * (scale / (adapter.alpha / adapter.rank))
    if "m" in here:
        here["m"][index] = found["lora_magnitude_vector"].reshape(-1)


def _import_factors(
    layer: str, module: Module, array: np.ndarray | None, factors: np.ndarray, config: Mapping[str, Any]
) -> None:
    """Writes the factors of peft for one module into those of its layer here."""
    if array is None:
        return
    flat, of_inputs = array.reshape(-1), layer.endswith("/fc2")
    forward = any(module.name.endswith(each) for each in config.get("feedforward_modules") or ())
    if forward != of_inputs:
        side = "inputs" if forward else "outputs"
        raise ValueError(f"factors of the {side} of {module.name} are unsupported")
    if of_inputs:
        factors[0] = flat
        return
    width, count = factors.shape[1], len(factors)
    outputs = width * 3 if layer_name(layer) == "qkv" else width * count
    covered = np.zeros(module.width, bool)
    for index, (start, size) in enumerate(columns_of(layer_name(layer), outputs, "kv")):
        low, high = max(start, module.start), min(start + size, module.start + module.width)
        if low < high:
            factors[index][low - start : high - start] = flat[low - module.start : high - module.start]
            covered[low - module.start : high - module.start] = True
    if not (flat[~covered] == 1).all():
        raise ValueError(f"factors of the queries in {module.name} are unsupported")


def _imported_adapter(
    config: Mapping[str, Any],
    layers: Mapping[str, list[Module]],
    found: Mapping[str, Any],
    name: str | None,
) -> Adapter:
    """Returns the description of an adapter of peft."""
    paths = tuple(layers)
    if config["peft_type"] == "IA3":
        return Ia3(name=name or "ia3", layers=paths)
    parts = {
        "qkv"[index]
        for modules in layers.values()
        if len(modules) == 3
        for index, module in enumerate(modules)
        if module.name in found
    }
    rank = max(_scale(config, module)[0] for module in found)
    kind = Dora if config.get("use_dora") else Lora
    letters: Any = "".join(part for part in "qkv" if part in parts)
    alpha = rank * _scale(config, next(iter(found)))[1]
    return kind(name=name or kind.kind, layers=paths, rank=rank, alpha=float(alpha), parts=letters)


def _scale(config: Mapping[str, Any], module: str) -> tuple[int, float]:
    """Returns the rank and the scale of the updates of a module."""
    values = [config["r"], config["lora_alpha"]]
    for index, pattern in enumerate((config.get("rank_pattern") or {}, config.get("alpha_pattern") or {})):
        for key, value in pattern.items():
            if module == key or module.endswith(f".{key}"):
                values[index] = value
    rank, alpha = values
    return rank, alpha / (rank**0.5 if config.get("use_rslora") else rank)


def _import_head(model: Classifier, network: str, library: str, rest: Mapping[str, np.ndarray]) -> None:
    """Sets the classifier of a model, if the file has one of the same shape."""
    key_map, (_, params, _), found = KeyMap(network, library), split(model), {}
    for leaf in ("kernel", "bias"):
        keys = key_map.keys(path := f"{HEAD}/{leaf}")
        if keys and all(key in rest for key in keys):
            array = key_map.import_array(path, [rest[key] for key in keys])
            if array is not None and path in params and array.shape == params[path].shape:
                found[path] = array
    if len(found) == 2:
        update(model, found)
