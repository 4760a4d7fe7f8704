"""Checks of the fields of a config."""

import dataclasses
from typing import Any, get_args


def check_choices(config: Any, **literals: Any) -> None:
    """Checks that fields have one of the values of a `Literal`.

    Args:
        config: A dataclass.
        **literals: The `Literal` type of each field to check.

    Raises:
        ValueError: If a field has another value.
    """
    for field, literal in literals.items():
        choices, value = get_args(literal), getattr(config, field)
        if value not in choices:
            raise ValueError(f"{field} must be one of {choices}, got {value!r}")


def check_ranges(config: Any, **ranges: str) -> None:
    """Checks that numbers are in their ranges; None is allowed where it is the default.

    Args:
        config: A dataclass.
        **ranges: The range of each field to check; one of the keys of `RANGES`.

    Raises:
        ValueError: If a number is outside its range.
    """
    defaults = {field.name: field.default for field in dataclasses.fields(config)}
    for field, allowed in ranges.items():
        value = getattr(config, field)
        if value is None and defaults[field] is None:
            continue
        if not RANGES[allowed](value):
            raise ValueError(f"{field} must be {allowed}, got {value}")


RANGES = {
    "at least 0": lambda value: value >= 0,
    "at least 1": lambda value: value >= 1,
    "more than 0": lambda value: value > 0,
    "in (0, 1]": lambda value: 0 < value <= 1,
    "in (0, 1)": lambda value: 0 < value < 1,
    "in [0, 1)": lambda value: 0 <= value < 1,
}
"""The ranges of numbers, as error messages name them."""
