"""Writes adapters as peft reads them."""

import collections
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from transfer_jax.models.adapters.adapter import Adapter, Dora, Ia3, Lora
from transfer_jax.models.adapters.kernel_rules import columns_of
from transfer_jax.models.backbone import Classifier
from transfer_jax.models.flat_arrays import split
from transfer_jax.storage.atomic_write import replaced_atomically, write_text
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
    only_adapter,
    overlaps,
    to_torch,
)


def save_peft(
    model: Classifier,
    network: str,
    folder: str | Path,
    *,
    library: str | None = None,
    name: str | None = None,
) -> Path:
    """Writes an adapter of a model, and its head, as peft reads them.

    Args:
        model: The model.
        network: Name of the network.
        folder: The folder; it is created if needed.
        library: The library of the network that peft wraps, such as `timm`, or `transformers-5` for one that
            transformers 5 has in memory; None takes the first one that the network has.
        name: Name of the adapter; None takes the only one.

    Returns:
        The folder.

    Raises:
        ValueError: If peft has no such adapter, or the library no such layer.
    """
    adapter, (_, params, _) = only_adapter(model, name), split(model)
    layers = module_names(network, library or libraries_of(network)[0], adapter.layers, params)
    arrays: dict[str, np.ndarray] = {}
    ranks: dict[str, int] = {}
    targets: list[str] = []
    forward: list[str] = []
    for layer, modules in layers.items():
        kernel = np.asarray(params[f"{layer}/kernel"])
        paths = arrays_of_layer(params, layer, adapter)
        rule = {path.rpartition("/")[2]: np.asarray(params[path]) for path in paths}
        for module in modules:
            found = _exported(adapter, layer, module, kernel, rule)
            targets += [module.name] if found else []
            arrays |= {f"{PREFIX}{module.name}.{key}": array for key, array in found.items()}
            if "lora_A.weight" in found:
                ranks[module.name] = len(found["lora_A.weight"])
            elif found and layer.endswith("/fc2"):
                forward.append(module.name)
    head = _head_arrays(network, library or libraries_of(network)[0], params)
    arrays |= {f"{PREFIX}{key}": array for key, array in head.items()}
    config: dict[str, Any] = {
        "peft_type": "IA3" if isinstance(adapter, Ia3) else "LORA",
        "task_type": None,
        "inference_mode": True,
        "base_model_name_or_path": network,
        "target_modules": sorted(targets),
        "modules_to_save": sorted({key.rpartition(".")[0] for key in head}) or None,
        "fan_in_fan_out": False,
    }
    if isinstance(adapter, Lora):
        rank, scale = collections.Counter(ranks.values()).most_common(1)[0][0], adapter.alpha / adapter.rank
        other = {module: count for module, count in ranks.items() if count != rank}
        config |= {
            "r": rank,
            "lora_alpha": scale * rank,
            "rank_pattern": other,
            "alpha_pattern": {module: scale * count for module, count in other.items()},
            "lora_dropout": 0.0,
            "bias": "none",
            "use_dora": isinstance(adapter, Dora),
            "use_rslora": False,
        }
    else:
        config["feedforward_modules"] = sorted(forward)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with replaced_atomically(folder / ARRAYS) as unfinished:
        save_file(arrays, unfinished, {"format": "pt"})
    write_text(folder / CONFIG, json.dumps(config, indent=2))
    return folder


def _exported(
    adapter: Adapter, layer: str, module: Module, kernel: np.ndarray, rule: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Returns the arrays of peft for one module; none if the adapter leaves it as it is."""
    end = module.start + module.width
    if isinstance(adapter, Ia3):
        if layer.endswith("/fc2"):
            return {"ia3_l": rule["factors"][:1]}
        factors, touched = np.ones(module.width, np.float32), False
        for index, low, high in overlaps(columns_of(layer_name(layer), kernel.shape[-1], "kv"), module):
            start = columns_of(layer_name(layer), kernel.shape[-1], "kv")[index][0]
            factors[low - module.start : high - module.start] = rule["factors"][index][
                low - start : high - start
            ]
            touched = True
        shape = (-1, 1) if kernel.ndim == 2 else (1, -1, 1, 1)
        return {"ia3_l": factors.reshape(shape)} if touched else {}
    assert isinstance(adapter, Lora)
    columns = columns_of(layer_name(layer), kernel.shape[-1], adapter.parts)
    downs, ups = [], []
    matrix = kernel.reshape(-1, kernel.shape[-1])
    lengths = np.linalg.norm(matrix[:, module.start : end], axis=0).astype(np.float32)
    for index, low, high in overlaps(columns, module):
        start = columns[index][0]
        up = np.zeros((adapter.rank, module.width), np.float32)
        inside = slice(low - module.start, high - module.start)
        up[:, inside] = rule["b"][index][:, low - start : high - start]
        downs.append(rule["a"][index])
        ups.append(up)
        if "m" in rule:
            lengths[inside] = rule["m"][index][low - start : high - start]
    if not downs:
        return {}
    down, up = np.concatenate(downs, 1), np.concatenate(ups, 0)
    found = {"lora_A.weight": to_torch(down, kernel), "lora_B.weight": up.T}
    if kernel.ndim == 4:
        found["lora_B.weight"] = found["lora_B.weight"][:, :, None, None]
    if "m" in rule:
        found["lora_magnitude_vector"] = lengths if kernel.ndim == 2 else lengths[None, :, None, None]
    return {key: np.ascontiguousarray(array) for key, array in found.items()}


def _head_arrays(network: str, library: str, params: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Returns the arrays of the classifier in a library; none if it has no such classifier."""
    key_map, found = KeyMap(network, library), {}
    if any(path.startswith("head/hidden") for path in params):
        return {}
    for leaf in ("kernel", "bias"):
        found |= key_map.export_array(f"{HEAD}/{leaf}", np.asarray(params[f"{HEAD}/{leaf}"]))
    return found
