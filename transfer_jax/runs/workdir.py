"""A run's folder: which run it belongs to."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from transfer_jax.storage import workdir_files
from transfer_jax.distributed import processes
from transfer_jax.config import TrainConfig
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
    "score_training",
    "strategy",
    "tensor",
    "threads",
    "trackers",
)
"""Fields that do not change what is learnt, so that a run may go on with other values."""
LAZY = (workdir_files.FEATURES,)
"""Folders of a workdir that come and go by themselves, and are not mirrored."""


def check_workdir(config: TrainConfig, workdir: Path, *, force: bool = False) -> bool:
    """Checks that a folder can be the workdir of a config, and writes nothing.

    Args:
        config: The config.
        workdir: The folder.
        force: Whether to take a folder that was begun with another config.

    Returns:
        Whether it already is.

    Raises:
        ValueError: If it was begun with another config (what differs is named), or lies among the images.
        OSError: If it cannot be written.
    """
    check_place(config, workdir)
    path = workdir / workdir_files.CONFIG
    if not path.is_file():
        return False
    changes = differences(read_config(workdir), config)
    if changes and not force:
        more = f" and {len(changes) - 5} more" if len(changes) > 5 else ""
        raise ValueError(
            f"{workdir} was begun with another config: {'; '.join(changes[:5])}{more}. "
            "Use another workdir, or go on all the same with --force-config."
        )
    return True


def differences(begun: TrainConfig, given: TrainConfig) -> list[str]:
    """What differs between two configs, of what decides what is learnt; a phrase for each field."""
    before, now = (dict(_flatten(each.to_json())) for each in (begun, given))
    names = [name for name in sorted({*before, *now}) if name.split(".")[0] not in _INDIFFERENT]
    return [
        f"{name} was {before.get(name)!r}, now {now.get(name)!r}"
        for name in names
        if before.get(name) != now.get(name)
    ]


def claim(config: TrainConfig, workdir: Path, notes: Mapping[str, str] = MappingProxyType({})) -> None:
    """Makes a folder the workdir of a config, if this is the first process.

    Args:
        config: The config.
        workdir: The folder.
        notes: Texts to put there besides, by file name.

    Raises:
        OSError: If it cannot be written.
    """
    if processes.is_first():
        workdir.mkdir(parents=True, exist_ok=True)
        for name, text in notes.items():
            write_text(workdir / name, text)
        write_text(workdir / workdir_files.CONFIG, json.dumps(config.to_json(), indent=1))


def read_config(workdir: Path) -> TrainConfig:
    """The config that a workdir was begun with.

    Raises:
        FileNotFoundError: If it is no workdir.
        ValueError: If the config cannot be read; the file is named.
    """
    path = workdir / workdir_files.CONFIG
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
    """Checks that files can be written to a folder, which need not be there yet; writes nothing.

    Raises:
        ValueError: If it lies among the images.
        OSError: If it cannot be written.
    """
    place = next(path for path in (workdir, *workdir.absolute().parents) if path.exists())
    if not place.is_dir():
        raise NotADirectoryError(f"the workdir {workdir} cannot be made: {place} is a file")
    if not os.access(place, os.W_OK | os.X_OK):
        raise PermissionError(f"the workdir {workdir} cannot be written: no permission for {place}")
    images = Path(config.images.removeprefix("folder:")).expanduser()
    if images.is_dir() and workdir.resolve().is_relative_to(images.resolve()):
        raise ValueError(
            f"the workdir {workdir} lies inside the folder of the images, {images}, "
            "and would be taken for a class; choose another"
        )


def _flatten(values: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(values, Mapping):
        items = list(values.items())
    elif isinstance(values, list):
        items = list(enumerate(values))
    else:
        yield prefix.removesuffix("."), values
        return
    for name, value in items:
        yield from _flatten(value, f"{prefix}{name}.")
