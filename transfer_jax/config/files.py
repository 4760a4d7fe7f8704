"""Files of configs: experiments in Python, and the `config.json` of a run."""

import json
import runpy
from pathlib import Path

from transfer_jax.config.train_config import TrainConfig


def shipped_configs() -> dict[str, Path]:
    """Returns the experiments that are shipped with the package: their files, by name."""
    package = Path(__file__).parents[1]
    for folder in (package / "configs", package.parent / "configs"):
        if folder.is_dir():
            return {path.stem: path for path in sorted(folder.glob("*.py"))}
    return {}


def load_config(name: str) -> TrainConfig:
    """Loads a config from a file.

    Args:
        name: A Python file that defines `config`, the `config.json` of a run, or the name of one of
            `shipped_configs()`.

    Raises:
        ValueError: If there is no such file, it raises an error, or it defines no `TrainConfig` named
            `config`.
    """
    shipped = shipped_configs()
    path = shipped.get(name, Path(name))
    if not path.is_file():
        raise ValueError(
            f"no config {name!r}: give a file or one of the shipped configs: {', '.join(shipped)}"
        )
    if path.suffix == ".json":
        try:
            return TrainConfig.from_json(json.loads(path.read_bytes()))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is not a config that this version can read: {error}") from error
    try:
        config = runpy.run_path(str(path)).get("config")
    except Exception as error:
        raise ValueError(f"{path} cannot be run: {type(error).__name__}: {error}") from error
    if not isinstance(config, TrainConfig):
        raise ValueError(f"{path} must define `config`, a TrainConfig; it defines {type(config).__name__}")
    return config
