"""The folder of a run, and the config that it belongs to."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from transfer_jax.config import TrainConfig
from transfer_jax.distributed import processes
from transfer_jax.fields import is_stored_object, shown_object
from transfer_jax.freezing.python_object import same_object
from transfer_jax.runs.absolute_paths import are_paths, same_place, with_absolute_paths
from transfer_jax.storage import workdir_files
from transfer_jax.storage.atomic_write import write_text

_INDIFFERENT = (
    "checkpoint_seconds",
    "compile_ahead",
    "data_dir",
    "eval_every",
    "feature_dir",
    "feature_gigabytes",
    "feature_tier",
    "fsdp",
    "measure_every",
    "object_gigabytes",
    "prediction_columns",
    "prediction_format",
    "score_test",
    "score_training",
    "shard_update",
    "read_processes",
    "slices",
    "strategy",
    "tensor",
    "threads",
    "trackers",
)
"""Fields that do not change the result, so that a run may resume with other values."""
PLACES = ("images", "eval_images", "weights")
"""Fields that may be paths."""
NOT_MIRRORED = (workdir_files.FEATURES,)
"""Folders of a workdir that are recomputed when needed, and not mirrored to object storage."""


def started_config(config: TrainConfig, workdir: Path) -> TrainConfig | None:
    """Returns the config of the run in a folder, or None if a new run can start there; writes nothing.

    Args:
        config: The config of the new run.
        workdir: The folder.

    Raises:
        ValueError: If the folder is new and inside the folder of the images.
        OSError: If the folder is new and not writable. That of a run may be read-only if the run is finished.
    """
    if (workdir / workdir_files.CONFIG).is_file():
        return read_config(workdir)
    check_place(config, workdir)
    return None


def check_workdir(config: TrainConfig, workdir: Path, *, force: bool = False) -> bool:
    """Checks that a folder can be the workdir of a config; writes nothing.

    Images and weights may be in another place if `start.json` has their hashes, which the caller checks.

    Args:
        config: The config.
        workdir: The folder.
        force: Accepts a folder that was started with another config.

    Returns:
        True if the folder is already the workdir of a run.

    Raises:
        ValueError: As `started_config`, or if the folder was started with another config; the message names
            the differences.
        OSError: As `started_config`.
    """
    started = started_config(config, workdir)
    if started is None:
        return False
    changes = differences(started, config, moved=(workdir / workdir_files.START).is_file())
    if changes and not force:
        raise ValueError(
            f"{workdir} was started with another config: {listed(changes)}. "
            "Use another workdir, or resume anyway with --force-config."
        )
    return True


def listed(changes: Sequence[str]) -> str:
    """Returns the first changes, and the number of the others."""
    more = f" and {len(changes) - 5} more" if len(changes) > 5 else ""
    return "; ".join(changes[:5]) + more


def differences(started: TrainConfig, given: TrainConfig, *, moved: bool = False) -> list[str]:
    """Returns a phrase for each field that changes the result and differs between two configs.

    A relative path is the same as its absolute form.

    Args:
        started: The config of the run so far.
        given: The other config.
        moved: Whether images and weights may be in another place.
    """
    same = are_paths if moved else same_place
    before, now = (dict(_flatten(with_absolute_paths(each).to_json())) for each in (started, given))
    different = [
        name
        for name in sorted({*before, *now})
        if name.split(".")[0] not in _INDIFFERENT and not same_object(before.get(name), now.get(name))
    ]
    return [
        f"{name} was {_described(before.get(name))}, now {_described(now.get(name))}"
        for name in different
        if not (
            name in PLACES
            and None not in (before.get(name), now.get(name))
            and same(getattr(started, name), now[name])
        )
    ]


def _described(value: Any) -> str:
    """Returns a value in JSON as Python writes it; an object by its description and its hash."""
    return f"{shown_object(value)} [{value['digest'][:8]}]" if is_stored_object(value) else repr(value)


def claim(config: TrainConfig, workdir: Path, notes: Mapping[str, str] = MappingProxyType({})) -> None:
    """Writes the config into a folder, which makes it a workdir, if this is the first process.

    Its paths are written as absolute ones.

    Args:
        config: The config.
        workdir: The folder.
        notes: Texts of other files to write, by file name.

    Raises:
        OSError: If the folder is not writable.
    """
    if processes.is_first():
        workdir.mkdir(parents=True, exist_ok=True)
        for name, text in notes.items():
            write_text(workdir / name, text)
        values = with_absolute_paths(config).to_json()
        write_text(workdir / workdir_files.CONFIG, json.dumps(values, indent=1))


def read_config(workdir: Path) -> TrainConfig:
    """Returns the config that a workdir was started with.

    Raises:
        FileNotFoundError: If the folder is not a workdir.
        ValueError: If the config is invalid; the message names the file.
    """
    path = workdir / workdir_files.CONFIG
    if not path.exists():
        raise FileNotFoundError(f"{workdir} is not the folder of a run: it has no {workdir_files.CONFIG}")
    values = _read(path)
    try:
        return TrainConfig.from_json(values)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a config that this version can read: {error}") from error


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from None


def check_place(config: TrainConfig, workdir: Path) -> None:
    """Checks that a folder, which need not exist yet, is writable; writes nothing.

    Raises:
        ValueError: If it is inside the folder of the images.
        OSError: If it is not writable.
    """
    place = next(path for path in (workdir, *workdir.absolute().parents) if path.exists())
    if not place.is_dir():
        raise NotADirectoryError(f"the workdir {workdir} cannot be created: {place} is a file")
    if not os.access(place, os.W_OK | os.X_OK):
        raise PermissionError(f"the workdir {workdir} is not writable: no permission for {place}")
    images = Path(config.images.removeprefix("folder:")).expanduser()
    if images.is_dir() and workdir.resolve().is_relative_to(images.resolve()):
        raise ValueError(
            f"the workdir {workdir} is inside the folder of the images, {images}, "
            "and would be read as a class; choose another"
        )


def _flatten(values: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(values, Mapping) and not is_stored_object(values):
        items = list(values.items())
    elif isinstance(values, list):
        items = list(enumerate(values))
    else:
        yield prefix.removesuffix("."), values
        return
    for name, value in items:
        yield from _flatten(value, f"{prefix}{name}.")
