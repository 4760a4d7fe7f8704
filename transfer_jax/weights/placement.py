"""The place of a network in a weight file: the library whose names its keys have, and the prefix before them.

Wrappers of training scripts put prefixes such as `module.`, `_orig_mod.` or `model.backbone.` before the
names of a network's arrays. No prefix is known here: the right one is that below which the names are.
"""

import collections
import dataclasses
import math
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from transfer_jax.weights.key_mapping import KeyMap, layer_names_of
from transfer_jax.weights.readers import LazyWeights
from transfer_jax.weights.readers.entries import of_optimizer, several, suffixes

Shape = tuple[int, ...]
_RESIZED = ("/pos_embed", "/relative_position_bias_table")
"""Parameters whose length depends on the size of the images."""


@dataclasses.dataclass(frozen=True)
class Placement:
    """A place of a network in a file.

    Attributes:
        key_map: The names of the library.
        prefix: The prefix of the network's keys, with its separator; "" if there is none.
        found: The number of parameters of the network, its head included, that are below the prefix.
        complete: Whether all needed parameters are there.
    """

    key_map: KeyMap
    prefix: str
    found: int
    complete: bool

    def keys(self, paths: Iterable[str]) -> frozenset[str]:
        """Returns the keys of parameters in the file."""
        return frozenset(self.prefix + key for path in paths for key in self.key_map.keys(path))

    def fits(self, targets: Mapping[str, Shape], shapes: Mapping[str, Shape]) -> bool:
        """Returns whether arrays have as many values as the parameters, other than embeddings of positions.

        The kernel of a dense layer does not fit a convolution over several pixels.

        Args:
            targets: The shapes of the parameters, by path; the file has all of them.
            shapes: The shapes of the file's arrays, by key.
        """
        for path, shape in targets.items():
            found = [shapes[self.prefix + key] for key in self.key_map.keys(path)]
            if path.endswith(_RESIZED):
                shape, found = shape[-1:], [each[-1:] for each in found]
            if sum(map(math.prod, found)) != math.prod(shape) * self.key_map.parts(path):
                return False
            if len(shape) == 4 and shape[0] > 1 and any(len(each) == 2 for each in found):
                return False
        return True


def shapes_of(arrays: Mapping[str, Any]) -> dict[str, Shape]:
    """Returns the shapes of arrays, by key; nothing is read from a file."""
    if isinstance(arrays, LazyWeights):
        return {key: info.shape for key, info in arrays.infos.items()}
    return {key: tuple(array.shape) for key, array in arrays.items()}


def find_network(
    model: str,
    targets: Mapping[str, Shape],
    shapes: Mapping[str, Shape],
    needed: Collection[str],
    *,
    libraries: Collection[str] | None = None,
) -> Placement:
    """Returns the place of a network in a file.

    A place without prefix is taken if the network is complete there. Otherwise, the network may be complete
    in one place only. If it is complete nowhere, the place with most of its parameters is returned; a place
    with a prefix only if it has most of them.

    Args:
        model: Name of the network.
        targets: The shapes of the network's parameters, by path.
        shapes: The shapes of the file's arrays, by key.
        needed: The paths of the parameters that the file must have.
        libraries: The libraries to consider; None takes all.

    Raises:
        SeveralStateDictsError: If the network is complete in several places, such as `student.` and
            `teacher.`.
    """
    places = _places(model, targets, shapes, needed, libraries)
    complete = [place for place in places if place.complete]
    complete = [place for place in complete if not of_optimizer(place.prefix)] or complete
    if not complete:
        usual = [place for place in places if not place.prefix or place.found > len(targets) / 2]
        return max(usual, key=lambda place: (place.found, -len(place.prefix), place.prefix))
    wanted = {path: targets[path] for path in needed}
    fitting = [place for place in complete if place.fits(wanted, shapes)] or complete
    networks: dict[frozenset[str], Placement] = {}  # the keys of one network may be those of two libraries
    for place in sorted(fitting, key=lambda place: (-place.found, len(place.prefix), place.prefix)):
        networks.setdefault(place.keys(needed), place)
    plain = [place for place in networks.values() if not place.prefix]
    if plain or len(networks) == 1:
        return (plain or [*networks.values()])[0]
    raise several(
        {
            place.prefix[:-1]: {key: shapes[key] for key in keys if key in shapes}
            for keys, place in sorted(networks.items(), key=lambda item: item[1].prefix)
        }
    )


def occurs(targets: Mapping[str, Shape], shapes: Mapping[str, Shape], key_map: KeyMap) -> bool:
    """Returns whether a file has arrays of the sizes of some parameters, all below one prefix.

    Args:
        targets: The shapes of the parameters, by path.
        shapes: The shapes of the file's arrays, by key.
        key_map: The names of the parameters in the file.
    """
    keys = [key_map.keys(path) for path in targets]
    if not all(keys):
        return False
    ending = keys[0][0]
    places = [
        Placement(key_map, key.removesuffix(ending), len(targets), True)
        for key in shapes
        if key.endswith(ending)
    ]
    return any(place.keys(targets) <= shapes.keys() and place.fits(targets, shapes) for place in places)


def _places(
    model: str,
    targets: Mapping[str, Shape],
    shapes: Mapping[str, Shape],
    needed: Collection[str],
    libraries: Collection[str] | None,
) -> list[Placement]:
    prefixes: dict[str, set[str]] = collections.defaultdict(set)
    for key in shapes:
        for prefix, name in suffixes(key):
            prefixes[name].add(prefix)
    places = []
    for library in layer_names_of(model) if libraries is None else libraries:
        key_map = KeyMap(model, library)
        found: collections.Counter[str] = collections.Counter({"": 0})
        found_needed: collections.Counter[str] = collections.Counter()
        for path in targets:
            keys = key_map.keys(path)
            here = set.intersection(*(prefixes.get(key, set()) for key in keys)) if keys else set()
            found.update(here)
            if path in needed:
                found_needed.update(here)
        most = max(found.values())
        places += [
            Placement(key_map, prefix, count, found_needed[prefix] == len(needed))
            for prefix, count in found.items()
            if count == most or found_needed[prefix] == len(needed) or not prefix
        ]
    return places
