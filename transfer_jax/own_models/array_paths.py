"""Paths of the arrays of a user's model among those of a `Classifier`: `backbone/<block>/<rest>`."""

import re
from collections.abc import Collection, Mapping

from flax import nnx

_STATE = ("mean", "var", "state")
"""The last part of the path of a running statistic."""


def block_name(group: str, taken: Collection[str]) -> str:
    """Returns the name of the block of a group of parameters, such as `layers.0` for `layers/0`.

    Args:
        group: The first parts of the parameters' paths.
        taken: Names that a block may not have; an underscore is added to them.
    """
    name = _without_numbers(group).replace("/", ".")
    return f"{name}_" if name in taken or name == "head" else name


def own_parts(path: str, group: str, block: str, *, state: bool = False) -> tuple[str, ...]:
    """Returns the names from a backbone to an array of a user's model, its block first.

    Args:
        path: Its path in the user's tree.
        group: Its group.
        block: The name of the block of the group.
        state: Whether it is a running statistic and no parameter.
    """
    rest = path.removeprefix(f"{group}/") if path != group else "value"
    parts = [f"{part}_" if hasattr(nnx.Module, part) else part for part in _without_numbers(rest).split("/")]
    if state and parts[-1] not in _STATE:
        parts.append("state")
    return (block, *parts)


def group_of_state(path: str, groups: Mapping[str, str]) -> str:
    """Returns the group of a running statistic: that of the parameters with the longest common path.

    Args:
        path: Path of the statistic, whose first part may be the name of a collection such as `batch_stats`.
        groups: The group of each parameter by path, in order.
    """
    parts = path.split("/")
    candidates = ["/".join(parts[start:-1]) for start in (0, 1)]

    def common(parameter: str) -> int:
        return max(_common_parts(candidate, parameter) for candidate in candidates)

    return groups[max(groups, key=common)]


def _common_parts(one: str, other: str) -> int:
    count = 0
    for a, b in zip(one.split("/"), other.split("/"), strict=False):
        if a != b:
            break
        count += 1
    return count


def _without_numbers(path: str) -> str:
    """Returns a path in which no part is a number: `layers/0/kernel` becomes `layers.0/kernel`."""
    path = re.sub(r"/(\d+)(?=/|$)", r".\1", path)
    return re.sub(r"^(\d+)(?=[./]|$)", r"_\1", path)
