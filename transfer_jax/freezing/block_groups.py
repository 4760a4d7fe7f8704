"""Blocks of any tree of parameters: the unit that selectors count and name."""

import re
from collections.abc import Iterable, Mapping, Sequence

from transfer_jax.counted import counted
from transfer_jax.freezing.selectors import SelectorError
from transfer_jax.models.paths import block_of


class BlockGroups(dict[str, str]):
    """The block of each parameter, by path.

    Attributes:
        ordered: Whether the entries are in the order of the blocks, input side first. `top`, `from_`,
            `between` and `depth` need that.
    """

    ordered: bool = True


def group_by_block(
    paths: Iterable[str], blocks: Sequence[str] | Mapping[str, str] | str | None = None
) -> BlockGroups:
    """Returns the block of each parameter.

    Args:
        paths: Paths of all parameters.
        blocks: The names of the blocks in order, input side first, each the first parts of the paths of its
            parameters, and `head` last, which may be left out; or a regular expression whose first group is
            the name; or the block of each path in order, as `blocks_by_depth` returns it. None takes the
            first parts of a path up to the first one with a number, or all but the last.

    Raises:
        SelectorError: If a parameter is in no block.
    """
    paths = [*paths]
    if isinstance(blocks, Mapping):
        names = dict(blocks)
    elif blocks is None:
        names = {path: _default_block(path) for path in paths}
    elif isinstance(blocks, str):
        names = {path: _matched(re.search(blocks, path)) or _head(path) for path in paths}
    else:
        names = {path: _named_block(path, blocks) for path in paths}
    unnamed = [path for path in paths if not names.get(path)]
    if unnamed:
        outside = counted(len(unnamed), "parameter is", "parameters are")
        raise SelectorError(f"{outside} in no block, such as {unnamed[0]!r}")
    if isinstance(blocks, Mapping):
        groups = BlockGroups({path: name for path, name in names.items() if path in {*paths}})
        groups.ordered = getattr(blocks, "ordered", True)
        return groups
    order = [*dict.fromkeys(names.values())] if blocks is None or isinstance(blocks, str) else [*blocks]
    position = {
        name: index for index, name in enumerate([*(each for each in order if each != "head"), "head"])
    }
    groups = BlockGroups(sorted(names.items(), key=lambda item: (position[item[1]], item[0])))
    groups.ordered = blocks is not None and not isinstance(blocks, str)
    return groups


def _default_block(path: str) -> str:
    parts = path.split("/")
    if parts[0] in ("backbone", "head"):
        return block_of(path)
    numbered = next((index for index, part in enumerate(parts[:-1]) if re.search(r"\d", part)), None)
    end = len(parts) - 1 if numbered is None else numbered + 1
    return "/".join(parts[: max(end, 1)])


def _matched(match: re.Match[str] | None) -> str:
    return "" if match is None else match.group(1) if match.re.groups else match.group(0)


def _named_block(path: str, names: Sequence[str]) -> str:
    first = path.split("/")[0]
    if first == "backbone" and block_of(path) in names:
        return block_of(path)
    fitting = [name for name in names if path == name or path.startswith(f"{name}/")]
    return max(fitting, key=len, default=_head(path))


def _head(path: str) -> str:
    """Returns `head` for a parameter of the head, otherwise an empty string."""
    return "head" if path.split("/")[0] == "head" else ""
