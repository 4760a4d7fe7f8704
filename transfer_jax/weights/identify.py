"""Identification of the network of a weight file, from the names and shapes of its arrays alone."""

import collections
import dataclasses
import functools
import re
from collections.abc import Iterable, Mapping

from transfer_jax.models.registry import FAMILIES, family_of, variant_of
from transfer_jax.weights.key_mapping import BOOKKEEPING, KeyMap
from transfer_jax.weights.other_parts import head_layers, other_parts
from transfer_jax.weights.placement import find_network, occurs
from transfer_jax.weights.readers import SeveralStateDictsError
from transfer_jax.weights.readers.entries import suffixes
from transfer_jax.weights.structures import (
    backbone_shapes,
    distinct_structures,
    first_shapes,
    shallow,
    shallow_shapes,
)

_NUMBER = re.compile(r"\d+([a-z](?=_))?")
"""A number, with the letter that counts the blocks of a stage in Keras (`block2b_`)."""
_NAMES = {_NUMBER.sub("#", model) for family in FAMILIES for model in family.variants}
_NAME = re.compile("|".join(map(re.escape, sorted(_NAMES, key=len, reverse=True))))
"""The names of networks, which Keras puts into the names of its layers; their numbers are replaced."""


@dataclasses.dataclass(frozen=True)
class FamilyMatch:
    """The similarity between the keys of a file and those of a family in a library's names.

    Attributes:
        family: The name of the family.
        library: The name of the library.
        similarity: The Jaccard index of the two sets of key patterns, in [0, 1]. A pattern is a key without
            numbers and names of networks. Keys are compared without the prefix that fits best.
    """

    family: str
    library: str
    similarity: float

    def __str__(self) -> str:
        return f"{self.family} ({self.library}, {self.similarity:.0%} of the keys)"


def closest_families(keys: Iterable[str], count: int = 3) -> list[FamilyMatch]:
    """Returns the families whose keys are most similar, best first. Families without similarity are left out.

    Args:
        keys: The keys of a weight file.
        count: The number of families to return, at most.
    """
    prefixes: dict[str, set[str]] = collections.defaultdict(set)
    patterns = {_key_pattern(key) for key in keys}
    for pattern in patterns:
        for prefix, name in suffixes(pattern):
            prefixes[name].add(prefix)
    found = []
    for family in FAMILIES:
        similarities = {
            library: max(
                _similarity(prefixes, len(patterns), _key_patterns(model, library))
                for model in distinct_structures(family)
            )
            for library in family.layer_names
        }
        library = max(similarities, key=similarities.__getitem__)
        found.append(FamilyMatch(family.name, library, similarities[library]))
    alike = [match for match in found if match.similarity]
    return sorted(alike, key=lambda match: -match.similarity)[:count]


def matching_models(
    shapes: Mapping[str, tuple[int, ...]], nearest: Iterable[FamilyMatch]
) -> tuple[list[str], str]:
    """Returns the networks whose backbone a file fills exactly, and the library of the file's names.

    Args:
        shapes: The shapes of the file's arrays, by key.
        nearest: The families to search, in this order; see `closest_families`. The search ends with the first
            family that has such networks.

    Returns:
        The names of the networks and of the library; `([], "")` if there are none.
    """
    for match in nearest:
        variants = next(family.variants for family in FAMILIES if family.name == match.family)
        if models := [model for model in variants if _fills(model, match.library, shapes)]:
            return models, match.library
    return [], ""


def _fills(model: str, library: str, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    # To build all networks of a family takes seconds. Most of them do not fit by their first block.
    if not occurs(first_shapes(model), shapes, KeyMap(model, library)):
        return False
    targets = backbone_shapes(model)
    try:
        place = find_network(model, targets, shapes, targets, libraries=[library])
    except SeveralStateDictsError as error:
        return any(_fills(model, library, found) for found in error.shapes.values())
    if not (place.complete and place.fits(targets, shapes)):
        return False
    others = (BOOKKEEPING, *map(re.compile, family_of(model).ignored_keys))
    rest = {key.removeprefix(place.prefix): shapes[key] for key in shapes if key.startswith(place.prefix)}
    used = {key.removeprefix(place.prefix) for key in place.keys(targets)}
    rest = {key: shape for key, shape in rest.items() if key not in used}
    rest = {key: shape for key, shape in rest.items() if not any(other.search(key) for other in others)}
    return not rest.keys() - other_parts(rest, used, place.key_map, layers=head_layers(model))


@functools.cache
def _key_patterns(model: str, library: str) -> frozenset[str]:
    key_map = KeyMap(model, library, shape=shallow(variant_of(model).shape))
    return frozenset(_key_pattern(key) for path in shallow_shapes(model) for key in key_map.keys(path))


def _similarity(prefixes: Mapping[str, set[str]], total: int, own: frozenset[str]) -> float:
    counts = collections.Counter(prefix for pattern in own for prefix in prefixes.get(pattern, ()))
    return max((count / (total + len(own) - count) for count in counts.values()), default=0.0)


def _key_pattern(key: str) -> str:
    return _without_names(_NUMBER.sub("#", key))


@functools.cache
def _without_names(key: str) -> str:
    return _NAME.sub("#", key)
