"""Files of adapters: safetensors with their arrays, their description and the hash of the base."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from transfer_jax.models.adapters.adapter import Adapter, adapter_paths
from transfer_jax.models.adapters.install import install
from transfer_jax.models.backbone import Classifier
from transfer_jax.models.flat_arrays import split, update
from transfer_jax.storage.atomic_write import replaced_atomically
from transfer_jax.weights.base_weights import backbone_hash
from transfer_jax.weights.readers import CheckpointError, read_weights
from transfer_jax.weights.saved_model import MODEL_FILES, SavedModel

_KEY = "transfer_jax_adapters"


@dataclasses.dataclass(frozen=True)
class AdapterFile:
    """The content of a file of adapters.

    Attributes:
        adapters: The descriptions.
        arrays: The arrays by path.
        base: `backbone_hash` of the network that they were trained on; empty if it is not known.
    """

    adapters: tuple[Adapter, ...]
    arrays: Mapping[str, np.ndarray]
    base: str


def save_adapters(model: Classifier, file: str | Path, *names: str) -> Path:
    """Writes adapters of a model to a file, with the hash of the model's backbone.

    Args:
        model: The model.
        file: The file, `*.safetensors`.
        *names: Names of the adapters; without names, all of them.

    Returns:
        The file.

    Raises:
        ValueError: If the model has no such adapter, or none.
        OSError: If writing fails.
    """
    chosen = _chosen(model, names)
    _, params, stats = split(model)
    arrays = {path: np.asarray(params[path]) for path in adapter_paths(params, [a.name for a in chosen])}
    described = {
        "adapters": [each.to_json() for each in chosen],
        "base": backbone_hash({**params, **stats}),
        "sha256": _hash(arrays),
    }
    with replaced_atomically(Path(file)) as unfinished:
        try:
            save_file(arrays, unfinished, {_KEY: json.dumps(described)})
        except SafetensorError as error:
            raise OSError(f"writing {file} failed: {error}") from error
    return Path(file)


def read_adapters(place: str | Path) -> AdapterFile:
    """Reads the adapters of a file that `save_adapters` wrote, or of a finished run.

    Args:
        place: The file; or the workdir of a run, or its folder `model`.

    Raises:
        FileNotFoundError: If there is no such file or model.
        CheckpointError: If the file is damaged, or has no adapters.
    """
    place = Path(place)
    if place.is_dir():
        return _of_run(place)
    if not place.exists():
        raise FileNotFoundError(f"no file of adapters {place}")
    try:
        with safe_open(place, "numpy") as opened:
            described = json.loads((opened.metadata() or {}).get(_KEY, "null"))
            arrays = {path: opened.get_tensor(path) for path in opened.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError) as error:
        raise CheckpointError(f"{place} is damaged or no file of adapters: {error}") from None
    if described is None:
        raise CheckpointError(f"{place} has no adapters; load_peft reads folders of peft")
    if _hash(arrays) != described["sha256"]:
        raise CheckpointError(f"{place} is damaged: the arrays do not match their checksum; restore it")
    return AdapterFile(tuple(map(Adapter.from_json, described["adapters"])), arrays, described["base"])


def add_from_file(model: Classifier, content: AdapterFile, place: str | Path, name: str | None) -> None:
    """Adds the adapters of a file to a model in place.

    Args:
        model: The model.
        content: The content of the file.
        place: The file, for messages.
        name: Another name for the only adapter of the file; None keeps the names.

    Raises:
        ValueError: If the model has other weights than those that the adapters were trained on, other layers,
            or an adapter of that name; or if a file with several adapters gets one name.
    """
    _, params, stats = split(model)
    if content.base and (found := backbone_hash({**params, **stats})) != content.base:
        raise ValueError(
            f"the adapters in {place} were trained on a backbone with the SHA-256 {content.base[:12]}…, and "
            f"this one has {found[:12]}…; load the weights that they were trained on"
        )
    if name is not None and len(content.adapters) != 1:
        names = ", ".join(each.name for each in content.adapters)
        raise ValueError(f"{place} has the adapters {names}; one name is for a file with one adapter")
    for adapter in content.adapters:
        new = name or adapter.name
        install(model, dataclasses.replace(adapter, name=new))
        paths = adapter_paths(content.arrays, [adapter.name])
        fill(model, {_renamed(path, adapter.name, new): content.arrays[path] for path in paths}, new, place)


def fill(model: Classifier, arrays: Mapping[str, Any], name: str, place: str | Path) -> None:
    """Sets the arrays of an adapter of a model.

    Args:
        model: The model.
        arrays: The arrays by path.
        name: Name of the adapter.
        place: Their file, for messages.

    Raises:
        CheckpointError: If they are not those of the adapter.
    """
    _, params, _ = split(model)
    expected = {path: params[path].shape for path in adapter_paths(params, [name])}
    found = {path: np.shape(array) for path, array in arrays.items()}
    if expected != found:
        differing = sorted(path for path in {*expected, *found} if expected.get(path) != found.get(path))
        raise CheckpointError(f"{place} does not match the model: {', '.join(differing[:3])}")
    update(model, jax.device_put(dict(arrays)))


def _of_run(place: Path) -> AdapterFile:
    """Returns the adapters of the model of a run."""
    saved = SavedModel.describe(place)
    if not saved.adapters:
        raise CheckpointError(f"the model in {place} has no adapters")
    folder = place if (place / MODEL_FILES[0]).is_file() else place / "model"
    arrays = dict(read_weights(folder / MODEL_FILES[1]))
    paths = adapter_paths(arrays, [each.name for each in saved.adapters])
    base = "" if saved.base is None else saved.base.sha256
    return AdapterFile(saved.adapters, {path: arrays[path] for path in paths}, base)


def _chosen(model: Classifier, names: tuple[str, ...]) -> list[Adapter]:
    known = {each.name: each for each in model.backbone.adapters}
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"no adapter {unknown[0]!r}; the model has {', '.join(known) or 'none'}")
    if not known:
        raise ValueError("the model has no adapters; add one with add_adapter")
    return [known[name] for name in names or known]


def _renamed(path: str, old: str, new: str) -> str:
    return path.replace(f"/adapters/{old}/", f"/adapters/{new}/")


def _hash(arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for path, array in sorted(arrays.items()):
        digest.update(f"{path} {array.dtype.name} {array.shape} ".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
