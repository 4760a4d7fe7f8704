"""What commands that train are given: a config, which of its fields were typed, and where to work."""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from transfer_jax.config import TrainConfig
from transfer_jax.report.console import BARS, CONSOLE
from transfer_jax.runs.resolve import ResolvedRun, resolve
from transfer_jax.storage.remote import local_of, pull

Config = Annotated[TrainConfig, tyro.conf.arg(name="")]
"""Every field is an option."""
Given = Annotated[tuple[str, ...] | None, tyro.conf.Suppress]
"""The fields that options set; None where a config was named, which says all."""


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


def given_fields(arguments: Sequence[str]) -> tuple[str, ...]:
    """The fields of the config that options among the arguments of a command set."""
    fields = {field.name for field in dataclasses.fields(TrainConfig)}
    found = set()
    for argument in arguments:
        if argument.startswith("--"):
            name = argument.removeprefix("--").split("=")[0].split(".")[0].replace("-", "_")
            found |= {name, name.removeprefix("no_")} & fields
    return tuple(sorted(found))


def settled(
    config: TrainConfig, given: tuple[str, ...] | None, workdir: Path, look: bool = False
) -> ResolvedRun:
    """What will be trained, once what the user left open is chosen; says what was chosen, and found."""
    folder = local_of(workdir)
    pull(folder, skip=("features",))
    found = resolve(config, given, folder, BARS, look=look)
    if found.choices:
        _say("Chosen for you; an option says otherwise:")
        for choice in found.choices:
            _say(f"  {choice}")
    if found.findings:
        _say("Found in the images:")
        for finding in found.findings:
            _say(f"  {finding}")
    return found


def _say(line: str) -> None:
    CONSOLE.print(line, highlight=False, markup=False, soft_wrap=True)
