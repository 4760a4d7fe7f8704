"""Networks with the same arrays: the shapes of a file's arrays do not distinguish them.

Some of them compute differently, by their padding, epsilon or activation. Others differ in the preprocessing
of their published weights only.
"""

import dataclasses
import functools
from collections.abc import Hashable
from typing import Any

from transfer_jax.models.registry import family_of, variant_of
from transfer_jax.weights.structures import backbone_shapes

_NAMES = {"same": "TensorFlow's padding"}
_DESCRIPTIVE = frozenset(("kind", "ragged"))
"""Fields of a shape that no computation depends on."""


@functools.cache
def with_same_arrays(model: str) -> tuple[str, ...]:
    """Returns the other networks of the family whose backbones have the same arrays, by name and shape."""
    variants = family_of(model).variants
    own = variants[model]
    pixels, sizes = own.preprocessing.image_size, _sizes(own.shape)
    found = []
    for other, variant in variants.items():
        if other == model or _sizes(variant.shape) != sizes:
            continue
        if variant.shape == own.shape:
            same = variant.preprocessing.image_size == pixels
        else:
            same = backbone_shapes(other) == backbone_shapes(model)
        found += [other] if same else []
    return tuple(found)


def difference(model: str, other: str) -> str:
    """Returns how the computation of a network differs from that of another one with the same arrays.

    Returns:
        A text such as "epsilon is 0.001 instead of 1e-05"; "" if they compute the same.
    """
    first, second = variant_of(model).shape, variant_of(other).shape
    if first == second:
        return ""
    if not (dataclasses.is_dataclass(first) and dataclasses.is_dataclass(second)):
        return "their layers differ"
    parts = []
    for field in dataclasses.fields(first):
        one, two = getattr(first, field.name), getattr(second, field.name)
        if one == two or field.name in _DESCRIPTIVE:
            continue
        plain = all(isinstance(value, bool | int | float | str) or callable(value) for value in (one, two))
        name = _NAMES.get(field.name, field.name.replace("_", " "))
        parts.append(f"{name} is {_text(one)} instead of {_text(two)}" if plain else f"{name} differs")
    return ", ".join(parts)


def _sizes(shape: Any) -> Hashable:
    """Returns the whole numbers of a shape, which decide the shapes of the arrays."""
    if dataclasses.is_dataclass(shape):
        fields = [field for field in dataclasses.fields(shape) if field.name not in _DESCRIPTIVE]
        return tuple(_sizes(getattr(shape, field.name)) for field in fields)
    if isinstance(shape, tuple):
        return tuple(map(_sizes, shape))
    return shape if isinstance(shape, int) and not isinstance(shape, bool) else None


def _text(value: Any) -> str:
    if callable(value):
        return getattr(value, "__name__", "another function")
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)
