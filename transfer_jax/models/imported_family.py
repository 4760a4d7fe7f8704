"""A user's model by the place of the function that makes it: `package.module:function`, or an entry point."""

import contextlib
import importlib
import importlib.metadata
import sys
from collections.abc import Iterator
from typing import Any

from transfer_jax.models.family import Family

ENTRY_POINTS = "transfer_jax.models"
"""The group of entry points of packages that provide models."""


def is_entry_point(name: str) -> bool:
    """Returns True if an installed package provides a model under a name."""
    return bool(importlib.metadata.entry_points(group=ENTRY_POINTS, name=name))


def imported_family(name: str) -> Family:
    """Imports a function, calls it, and returns the family of the model that it returns.

    Args:
        name: `package.module:function`, or the name of an entry point. The module may also be in the current
            folder.

    Raises:
        ValueError: If there is no such module or function, or it returns something else.
    """
    place = name
    if ":" not in name:
        (found,) = importlib.metadata.entry_points(group=ENTRY_POINTS, name=name)
        place = found.value
    module_name, _, attribute = place.partition(":")
    try:
        with _current_folder():
            module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise ValueError(
            f"model {name!r}: there is no module {module_name!r}, neither installed nor in this folder"
        ) from None
    function = getattr(module, attribute, None)
    if not callable(function):
        raise ValueError(f"model {name!r}: the module {module_name!r} has no function {attribute!r}")
    made: Any = function()
    if not hasattr(made, "family"):
        raise ValueError(
            f"model {name!r}: the function returned a {type(made).__name__}; "
            "return transfer_jax.own_model(model, …)"
        )
    return made.family(name)


@contextlib.contextmanager
def _current_folder() -> Iterator[None]:
    """Lets modules be imported from the current folder."""
    sys.path.insert(0, "")
    try:
        yield
    finally:
        sys.path.remove("")
