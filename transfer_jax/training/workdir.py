"""A run's folder: which run it belongs to."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from transfer_jax.config import TrainConfig

_INDIFFERENT = ("checkpoint_seconds", "data_dir", "eval_every", "feature_dir", "threads")
"""Fields that do not change what is learnt, so that a run may go on with other values."""


def claim(config: TrainConfig, workdir: Path) -> None:
    """Makes a folder the workdir of a config, or checks that it is.

    Raises:
        ValueError: If it was begun with another config; what differs is named.
        OSError: If it cannot be written.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    path = workdir / "config.json"
    if path.is_file():
        begun, given = (dict(_flatten(values)) for values in (json.loads(path.read_text()), config.to_json()))
        names = [name for name in sorted({*begun, *given}) if name.split(".")[0] not in _INDIFFERENT]
        changes = [
            f"{name} was {begun.get(name)!r}, now {given.get(name)!r}"
            for name in names
            if begun.get(name) != given.get(name)
        ]
        if changes:
            raise ValueError(
                f"{workdir} was begun with another config: {'; '.join(changes[:5])}. "
                "Use another workdir, or delete this one."
            )
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(config.to_json(), indent=1))
    partial.replace(path)


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
