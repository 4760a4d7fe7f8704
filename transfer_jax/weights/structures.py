"""The arrays of networks without their values, and networks that have the same layers.

Many networks of a family differ in widths and depths only. The names of their arrays are then the same up to
the numbers in them. A shallow network, which has at most two blocks in a stage, has the names of the whole
network and its first block, and is built in a fraction of the time.
"""

import dataclasses
import functools
import re
from collections.abc import Hashable, Mapping
from typing import Any

from transfer_jax.models.backbone import Backbone, Classifier, Head
from transfer_jax.models.family import Family, Setting
from transfer_jax.models.flat_arrays import split
from transfer_jax.models.registry import family_of, variant_of
from transfer_jax.nn.initializers import ShapeRngs

_DEPTHS = frozenset(("count", "depth", "depths"))
"""The fields of shapes that are numbers of blocks."""
_LETTERS = re.compile("[a-z]*")


@functools.cache
def backbone_shapes(model: str) -> Mapping[str, tuple[int, ...]]:
    """Returns the shapes of a backbone's parameters and statistics, by path."""
    return _shapes(_build(model, variant_of(model).shape))


@functools.cache
def shallow_shapes(model: str) -> Mapping[str, tuple[int, ...]]:
    """Returns the shapes of the arrays in the backbone of the shallow network, by path."""
    return _shapes(_build(model, shallow(variant_of(model).shape)))


def first_shapes(model: str) -> Mapping[str, tuple[int, ...]]:
    """Returns the shapes of the arrays in a network's first block, by path."""
    block = next(iter(shallow_shapes(model))).split("/")[1]
    return {path: shape for path, shape in shallow_shapes(model).items() if path.split("/")[1] == block}


def shallow(shape: Any) -> Any:
    """Returns the shape of a network with at most two blocks in each stage.

    Args:
        shape: The shape of a variant. It is returned unchanged if it does not name its depths.
    """
    if isinstance(shape, tuple):
        return tuple(map(shallow, shape))
    if not dataclasses.is_dataclass(shape) or isinstance(shape, type):
        return shape
    values = {field.name: getattr(shape, field.name) for field in dataclasses.fields(shape)}
    changed = {name: _few(value) if name in _DEPTHS else shallow(value) for name, value in values.items()}
    return dataclasses.replace(shape, **changed)


def distinct_structures(family: Family) -> list[str]:
    """Returns one network of a family for each structure; width and depth do not change the structure.

    Networks of one structure may be in different libraries. Their names then begin differently, and one for
    each beginning is kept.
    """
    first: dict[Hashable, str] = {}
    for model, variant in family.variants.items():
        beginning = _LETTERS.match(model)
        first.setdefault((beginning and beginning[0], _structure(variant.shape)), model)
    return list(first.values())


def _few(depths: Any) -> Any:
    return tuple(map(_few, depths)) if isinstance(depths, tuple) else min(depths, 2)


def _structure(shape: Any) -> Hashable:
    """Returns a shape in which each number is replaced by whether it is nonzero."""
    if dataclasses.is_dataclass(shape):
        return tuple(_structure(getattr(shape, field.name)) for field in dataclasses.fields(shape))
    if isinstance(shape, tuple):
        return frozenset(map(_structure, shape))
    return bool(shape) if isinstance(shape, int | float) else shape


def _build(model: str, shape: Any) -> Backbone:
    pixels = variant_of(model).preprocessing.image_size
    return family_of(model).build(shape, Setting(rngs=ShapeRngs(), image_size=pixels))


def _shapes(backbone: Backbone) -> dict[str, tuple[int, ...]]:
    _, params, stats = split(Classifier(backbone, Head(1, 1, rngs=ShapeRngs())))
    return {path: array.shape for path, array in {**params, **stats}.items() if path.startswith("backbone/")}
