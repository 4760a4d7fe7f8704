"""Former names of modules, fields and options, which still work with a warning. Version 0.2 removes them."""

import functools
import importlib
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, ParamSpec, TypeVar

Config = TypeVar("Config", bound=type)
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

MODULES = {
    "transfer_jax.data.images": "transfer_jax.data.decode",
    "transfer_jax.memory": "transfer_jax.malloc",
    "transfer_jax.models.functional": "transfer_jax.models.flat_arrays",
    "transfer_jax.training.pods": "transfer_jax.planning.topology",
    "transfer_jax.weights.naming": "transfer_jax.weights.key_mapping",
}
"""The module of today by former name."""
_NAMES = {
    "transfer_jax.data.images": {"look_at": "summarize_image"},
    "transfer_jax.weights.naming": {"Naming": "KeyMap"},
}
"""Names of today by former name, for modules whose names changed too."""

FIELDS = {"eval_fraction": "val_fraction"}
"""The field of today's config by former name; the names of options follow from them."""


class FormerNames(MetaPathFinder, Loader):
    """The finder of modules by their former names."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Returns the specification of a module with a former name, or None for any other module."""
        return ModuleSpec(fullname, self) if fullname in MODULES else None

    def exec_module(self, module: ModuleType) -> None:
        """Fills a module with the names of the module of today."""
        former = module.__name__
        warnings.warn(f"{former} is now {MODULES[former]}", DeprecationWarning, stacklevel=2)
        today = vars(importlib.import_module(MODULES[former]))
        vars(module).update({name: value for name, value in today.items() if not name.startswith("__")})
        vars(module).update({name: today[value] for name, value in _NAMES.get(former, {}).items()})


def with_former_fields(config: Config) -> Config:
    """Makes a dataclass accept the former names of its fields, with a `DeprecationWarning`."""
    init: Callable[..., None] = getattr(config, "__init__")  # noqa: B009
    setattr(config, "__init__", with_former_arguments(init))  # noqa: B010
    return config


def with_former_arguments(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Returns a function that accepts the former names of its arguments, with a `DeprecationWarning`."""

    @functools.wraps(function)
    def renamed(*args: Any, **values: Any) -> Any:
        for former in FIELDS.keys() & values.keys():
            warnings.warn(f"{former} is now {FIELDS[former]}", DeprecationWarning, stacklevel=2)
            values[FIELDS[former]] = values.pop(former)
        return function(*args, **values)

    return renamed


def with_todays_options(arguments: Sequence[str]) -> list[str]:
    """Returns the arguments of a command with the names of today in place of former options."""
    options = {f"--{former}": f"--{today}" for former, today in FIELDS.items()}
    options |= {former.replace("_", "-"): today.replace("_", "-") for former, today in options.items()}
    found = []
    for argument in arguments:
        name, equals, value = argument.partition("=")
        found.append(f"{options[name]}{equals}{value}" if name in options else argument)
    return found


def install() -> None:
    """Makes the former names importable."""
    if not any(isinstance(finder, FormerNames) for finder in sys.meta_path):
        sys.meta_path.append(FormerNames())
