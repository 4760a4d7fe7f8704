"""Texts about objects of Python: a short description, the source, and the whole structure with constants."""

import functools
import hashlib
import inspect
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

_SCALARS = (bool, int, float, complex, str, bytes, type(None), type(Ellipsis))
_NUMBERS = (bool, int, float, str)
_LIBRARIES = ("jax", "optax", "numpy", "flax", "chex")
_LONGEST = 300
"""Number of characters of a description."""
_DEEPEST = 20
"""Number of objects inside of each other that `structure` shows."""


def describe(value: Any) -> str:
    """Returns a short description of a function or of an `optax.GradientTransformation`.

    Example:
        >>> describe(optax.sgd(0.1))
        'chain(identity, scale(step_size=-0.1))'
    """
    text = _described(value, depth=0)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} …"


def _described(value: Any, depth: int) -> str:
    if isinstance(value, functools.partial):
        settings = [
            *map(_brief, value.args),
            *(f"{key}={_brief(each)}" for key, each in value.keywords.items()),
        ]
        return f"partial({', '.join([_described(value.func, depth + 1), *settings])})"
    if is_transformation(value):
        return _described_transformation(value, depth)
    if inspect.isroutine(value) or inspect.isclass(value):
        return importable_name(value) or _described_function(value)
    return type(value).__name__


def _described_function(value: Any) -> str:
    """Returns the function that made a function, with its settings, or the position of the function."""
    outer, _, inner = value.__qualname__.rpartition(".<locals>.")
    own_lambda = inner == "<lambda>" and not _is_of_library(value)
    if not outer or own_lambda or not inspect.isfunction(value):
        code = getattr(value, "__code__", None)
        position = f" ({Path(code.co_filename).name}:{code.co_firstlineno})" if code else ""
        return f"{inner}{position}"
    variables = inspect.getclosurevars(value).nonlocals
    settings = [f"{key}={_brief(each)}" for key, each in variables.items() if isinstance(each, _NUMBERS)]
    return f"{outer.split('.')[-1]}({', '.join(settings)})"


def _described_transformation(value: Any, depth: int) -> str:
    """Returns the name of the function that made a transformation, and what it contains."""
    update = value.update
    if not inspect.isfunction(update) or ".<locals>" not in update.__qualname__:
        return type(value).__name__ if inspect.ismethod(update) else _described(update, depth + 1)
    name = update.__qualname__.split(".<locals>")[0].split(".")[-1]
    parts = []
    for key, each in sorted(inspect.getclosurevars(update).nonlocals.items()):
        if isinstance(each, _NUMBERS):
            parts.append(f"{key}={_brief(each)}")
        elif depth < 4 and key.startswith("update") and isinstance(each, (list, tuple)):
            parts += [_described_transformation(_Update(part), depth + 1) for part in each]
        elif depth < 4 and is_transformation(each):
            parts.append(_described_transformation(each, depth + 1))
    if name == "with_extra_args_support" and len(parts) == 1:
        return parts[0]
    return f"{name}({', '.join(parts)})" if parts else name


class _Update:
    """A transformation of which only the update function is known."""

    def __init__(self, update: Any) -> None:
        self.update = update


def is_transformation(value: Any) -> bool:
    """Returns True for an `optax.GradientTransformation`, or anything else with its two functions."""
    return not inspect.isclass(value) and all(callable(getattr(value, x, None)) for x in ("init", "update"))


def _brief(value: Any) -> str:
    text = repr(value) if isinstance(value, _SCALARS) else _described(value, depth=4)
    return text if len(text) <= 40 else f"{text[:40]}…"


def importable_name(value: Any) -> str:
    """Returns the name of a function or class as `module:name`; an empty text if it cannot be imported."""
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if (
        not isinstance(module, str)
        or not isinstance(name, str)
        or "<" in module + name
        or module == "__main__"
    ):
        return ""
    found = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return f"{module}:{name}" if found is value else ""


def source_of(value: Any) -> str:
    """Returns the source of a function, or of the update function of a transformation.

    It is empty if it is unknown, or that of a library such as Optax.
    """
    while isinstance(value, functools.partial):
        value = value.func
    if is_transformation(value):
        value = value.update
    if _is_of_library(value):
        return ""
    try:
        return textwrap.dedent(inspect.getsource(value))
    except (OSError, TypeError):
        return ""


def structure(value: Any) -> str:
    """Returns a text of all that an object consists of: sources, settings, and hashes of arrays.

    It identifies an object that has no program of its own, in any process.
    """
    return _structure(value, frozenset())


def _structure(value: Any, above: frozenset[int]) -> str:
    if isinstance(value, _SCALARS):
        return repr(value)
    if id(value) in above or len(above) > _DEEPEST:
        return "…"
    inside = functools.partial(_structure, above=above | {id(value)})
    if hasattr(value, "__array__") and hasattr(value, "dtype"):
        array = np.asarray(value)
        return f"{array.dtype}{array.shape}{hashlib.sha256(array.tobytes()).hexdigest()}"
    if isinstance(value, functools.partial):
        return f"partial({inside(value.func)}, {inside(value.args)}, {inside(value.keywords)})"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{inside(key)}: {inside(each)}" for key, each in value.items()) + "}"
    if isinstance(value, (set, frozenset)):
        return "{" + ", ".join(sorted(map(inside, value))) + "}"
    if isinstance(value, (list, tuple)):
        return f"{type(value).__name__}({', '.join(map(inside, value))})"
    if inspect.ismethod(value):
        return f"{value.__qualname__} of {inside(value.__self__)}"
    if inspect.isfunction(value):
        variables, name = inspect.getclosurevars(value), f"{value.__module__}.{value.__qualname__}"
        settings = (value.__defaults__, value.__kwdefaults__, dict(sorted(variables.nonlocals.items())))
        if _is_of_library(value):
            return f"{name}: {inside(settings)}"
        used = {key: each for key, each in variables.globals.items() if not inspect.ismodule(each)}
        return f"{name}: {source_of(value)}{inside((settings, dict(sorted(used.items()))))}"
    if inspect.isclass(value) or inspect.isroutine(value):
        return f"{value.__module__}.{value.__qualname__}"
    fields = getattr(value, "__dict__", {})
    return f"{type(value).__module__}.{type(value).__qualname__}{inside(dict(sorted(fields.items())))}"


def _is_of_library(value: Any) -> bool:
    """Returns True for a function of a library whose source does not belong to the object."""
    return str(getattr(value, "__module__", "")).split(".")[0] in _LIBRARIES
