"""Conversions of arguments: NumPy scalars to numbers, paths to strings, lists or one name to tuples."""

import dataclasses
import functools
import json
import operator
import os
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

T = TypeVar("T")


def as_tuple(values: T | Iterable[T]) -> tuple[T, ...]:
    """Returns one name, path or number, or several of them, as a tuple. A string is one name.

    Example:
        >>> as_tuple("stages.2")
        ('stages.2',)
        >>> as_tuple(["stages.1", "stages.2"])
        ('stages.1', 'stages.2')

    Args:
        values: One value, or any iterable of values except a mapping.
    """
    if isinstance(values, str | bytes | os.PathLike | Mapping) or not isinstance(values, Iterable):
        return (typing.cast("T", values),)
    return tuple(values) if getattr(values, "ndim", 1) else (typing.cast("T", values),)


def convert_fields(instance: Any, group: type) -> None:
    """Converts the fields of a dataclass to the types of their annotations; call it in `__post_init__`.

    NumPy and JAX scalars become Python numbers, paths become strings, lists become tuples, and one value
    becomes a tuple of one. JSON can then store them. Fields of other types keep their values.

    Args:
        instance: An instance of a frozen dataclass.
        group: The class whose fields are converted: that of the instance or one of its bases.

    Raises:
        ValueError: If a value cannot be converted without a loss; the message names the field and the value.
    """
    for name, annotation in _annotations(group).items():
        value = getattr(instance, name)
        converted = _converted(value, annotation, name)
        if converted is not value:
            object.__setattr__(instance, name, converted)


def to_json(instance: Any) -> Any:
    """Returns the fields of a dataclass as JSON values; objects with a method `to_json` as its result."""
    values = dataclasses.asdict(instance)
    return json.loads(json.dumps(values, default=lambda value: value.to_json()))


def is_stored_object(value: Any) -> bool:
    """Returns True for the JSON values of an object of Python, such as an optimizer."""
    return isinstance(value, Mapping) and {"object", "description", "digest"} <= {*value}


def shown_object(value: Any) -> Any:
    """Returns the description of an object of Python in JSON; any other value unchanged."""
    return value["description"] if is_stored_object(value) else value


@functools.cache
def _annotations(group: type) -> dict[str, Any]:
    hints = typing.get_type_hints(group)
    return {field.name: hints[field.name] for field in dataclasses.fields(group)}


def _converted(value: Any, annotation: Any, name: str) -> Any:
    """Returns a value as the type of an annotation."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        others = [each for each in arguments if each is not type(None)]
        if value is None and len(others) < len(arguments):
            return None
        return _converted(value, others[0], name) if len(others) == 1 else value
    if origin is tuple:
        return _tuple(value, arguments, name)
    if origin is Literal:
        return str(value) if isinstance(value, str) else value
    convert = _CONVERSIONS.get(annotation)
    return value if convert is None or type(value) is annotation is not float else convert(value, name)


def _tuple(value: Any, arguments: tuple[Any, ...], name: str) -> tuple[Any, ...]:
    if isinstance(value, set | frozenset | Mapping):
        raise ValueError(f"{name} must be a tuple or a list, got {value!r}")
    values = as_tuple(value)
    if arguments[-1] is not Ellipsis and len(values) != len(arguments):
        raise ValueError(f"{name} must have {len(arguments)} values, got {value!r}")
    converted = tuple(_converted(each, arguments[0], name) for each in values)
    unchanged = type(value) is tuple and all(map(operator.is_, converted, value))
    return value if unchanged else converted


def _string(value: Any, name: str) -> str:
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if not isinstance(value, str):
        raise ValueError(f"{name} must be a string, got {_shown(value)}")
    return str(value)


def _whole(value: Any, name: str) -> int:
    if not isinstance(value, bool) and type(value).__name__ not in ("bool", "bool_"):
        try:
            return operator.index(_scalar(value))
        except TypeError:
            pass
        if isinstance(_scalar(value), float) and _scalar(value).is_integer():
            return int(_scalar(value))
    raise ValueError(f"{name} must be a whole number, got {_shown(value)}")


def _number(value: Any, name: str) -> float:
    scalar = _scalar(value)
    if isinstance(scalar, int | float) and not isinstance(scalar, bool) and scalar == scalar:
        return scalar
    raise ValueError(f"{name} must be a number, got {_shown(value)}")


def _truth(value: Any, name: str) -> bool:
    if isinstance(scalar := _scalar(value), int) and scalar in (0, 1):
        return bool(scalar)
    raise ValueError(f"{name} must be True or False, got {_shown(value)}")


_CONVERSIONS = {str: _string, int: _whole, float: _number, bool: _truth}


def _scalar(value: Any) -> Any:
    """Returns a scalar of NumPy, JAX or torch as a Python value."""
    return value.item() if getattr(value, "ndim", None) == 0 and hasattr(value, "item") else value


def _shown(value: Any) -> str:
    """Returns a value for a message; large ones by their type."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60]}... of type {type(value).__name__}"
