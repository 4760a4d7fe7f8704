"""What commands that train are given: a config, and where to work."""

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import tyro

from transfer_jax.config import TrainConfig

Config = Annotated[TrainConfig, tyro.conf.arg(name="")]
"""Every field is an option."""


def takes_config(command: Callable[..., Any]) -> bool:
    """Whether `transfer-jax COMMAND CONFIG` names an experiment."""
    return "config" in inspect.signature(command).parameters


def config_place(command: Callable[..., Any]) -> int:
    """Where among the arguments that experiment is named: behind what else has no name of its own."""
    return 1 + list(inspect.signature(command).parameters).index("config")


def preset(command: Callable[..., Any], /, **defaults: Any) -> Callable[..., Any]:
    """The command with other defaults, for those of its parameters that are named."""
    signature = inspect.signature(command)
    parameters = [
        parameter.replace(default=defaults.get(name, parameter.default))
        for name, parameter in signature.parameters.items()
    ]

    @functools.wraps(command)
    def changed(**values: Any) -> Any:
        return command(**values)

    setattr(changed, "__signature__", signature.replace(parameters=parameters))  # noqa: B010
    return changed


def default_workdir(config: TrainConfig) -> Path:
    """`runs/` and the name of the images."""
    return Path("runs", Path(config.images.replace(":", "-")).name)
