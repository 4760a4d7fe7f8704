"""Paths in configs, written so that a run means the same from any folder."""

import dataclasses
from pathlib import Path, PurePath

from transfer_jax.config import TrainConfig
from transfer_jax.data.sources import KINDS, absolute_source
from transfer_jax.storage.absolute_path import absolute_path
from transfer_jax.storage.remote import is_remote
from transfer_jax.weights import hub
from transfer_jax.weights.specs import specs, stated_network


def with_absolute_paths(config: TrainConfig) -> TrainConfig:
    """Returns a config with absolute paths for relative ones and for those with `~`.

    Addresses, names of datasets and names of sets of weights are not changed.
    """
    folders = {
        name: absolute_path(place)
        for name in ("data_dir", "feature_dir")
        if (place := getattr(config, name)) is not None
    }
    if config.eval_images is not None:
        folders["eval_images"] = absolute_source(config.eval_images)
    return dataclasses.replace(
        config, images=absolute_source(config.images), weights=_weights(config.weights), **folders
    )


def are_paths(before: str, now: str) -> bool:
    """Returns whether two values of `images` or `weights` are paths of the same kind, and no names."""
    return _kind_and_path(before)[0] == _kind_and_path(now)[0] and not (_is_name(before) or _is_name(now))


def same_place(before: str, now: str) -> bool:
    """Returns whether two values of `images` or `weights` may be the same file or folder.

    Runs of earlier versions have relative paths, whose folder is not known. They are compared with the end of
    the other path.

    Args:
        before: The value of the run so far.
        now: The other value.
    """
    if not are_paths(before, now):
        return False
    one, other = _kind_and_path(before)[1], _kind_and_path(now)[1]
    if one.is_absolute() == other.is_absolute():
        return one == other
    relative, absolute = (other, one) if one.is_absolute() else (one, other)
    parts = [part for part in relative.parts if part not in ("~", "..")]
    return bool(parts) and [*absolute.parts[-len(parts) :]] == parts


def _kind_and_path(value: str) -> tuple[str, PurePath]:
    """Returns `csv` or an empty text, and the path."""
    if value.startswith("csv:"):
        return "csv", PurePath(value.removeprefix("csv:"))
    return "", PurePath(stated_network(value)[1].removeprefix("folder:"))


def _is_name(value: str) -> bool:
    """Returns whether a text names a dataset, a set of weights or an address, and no path."""
    dataset = value.partition(":")[0] in {*KINDS} - {"folder", "csv"}
    named = value in ("auto", "none") or hub.is_remote(value) or value in {spec.name for spec in specs()}
    return dataset or named or is_remote(value)


def _weights(weights: str) -> str:
    stated, address = stated_network(weights)
    is_path = not _is_name(address) and Path(address).expanduser().exists()
    if not is_path:
        return weights
    return f"{stated}:{absolute_path(address)}" if stated else absolute_path(address)
