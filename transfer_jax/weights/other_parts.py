"""The arrays of a weight file that are no part of a backbone: heads, losses, projectors, averages."""

import re
from collections.abc import Iterable, Mapping

from transfer_jax.models.registry import variant_of
from transfer_jax.weights.key_mapping import KeyMap

_NEVER = re.compile(r"token|embed|norm|pool|stem|(^|[_.])(bn|ln)", re.IGNORECASE)
"""Names of modules and parameters of backbones. A file that has more of them is of another network."""
_HEADS = re.compile(
    r"head|classif|^_?fc|logits|linear|predict|proj|prototype|decoder|aux|loss|criterion|metric|output|last",
    re.IGNORECASE,
)
"""Names of modules that follow a backbone or stand beside it."""
_SHARED = frozenset(("head", "heads", "classifier"))
"""Names of modules with both the classifier and layers that are the end of a backbone here."""
_BODIES = re.compile(r"conv|layer|block|stage|feature|encoder|downsample|trunk|patch", re.IGNORECASE)


def other_parts(
    rest: Mapping[str, tuple[int, ...]], used: Iterable[str], key_map: KeyMap, *, layers: Iterable[str]
) -> set[str]:
    """Returns the keys of parts other than the backbone, such as a classifier of any number of layers.

    A key belongs to another part if its module is at the place of the library's classifier, has the name of a
    head, or has kernels and a name unlike those of backbones. Arrays inside the modules of the backbone never
    do: with them, the file is one of a larger network.

    Args:
        rest: The shapes of the arrays that the network lacks, by key without prefix.
        used: The keys of the backbone, without prefix.
        key_map: The names of the library.
        layers: The paths of the layers of the published classifier.
    """
    backbone = {_top(key) for key in used}
    places = {
        key.rpartition(sign)[0]
        for layer in layers
        for key in key_map.keys(f"{layer}/kernel")
        for sign in "./"
    }
    places = {place for place in places if place and place not in backbone}
    places |= {_top(place) for place in places if _top(place) not in backbone}
    modules: dict[str, list[str]] = {}
    for key in rest:
        modules.setdefault(_top(key), []).append(key)
    found: set[str] = set()
    for name, keys in modules.items():
        kernels = any(len(rest[key]) >= 2 for key in keys)
        if name in backbone:
            other = name in _SHARED
        else:
            other = bool(_HEADS.search(name)) or (kernels and not _BODIES.search(name))
        for key in keys:
            at_classifier = any(re.match(rf"{re.escape(place)}(_?\d+)?([./]|$)", key) for place in places)
            if at_classifier or (other and not _NEVER.search(key if name in backbone else name)):
                found.add(key)
    return found


def head_layers(model: str) -> list[str]:
    """Returns the paths of the layers of the published classifier, which a model's own head may lack."""
    hidden = variant_of(model).hidden
    return ["head/classifier", *(f"head/hidden/{index}" for index in range(len(hidden)))]


def _top(key: str) -> str:
    return re.split(r"[./]", key, maxsplit=1)[0]
