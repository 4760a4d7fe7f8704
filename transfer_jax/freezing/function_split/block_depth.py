"""The order of blocks by depth in the traced function, not by the spelling of their names."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from transfer_jax.freezing.block_groups import BlockGroups, group_by_block
from transfer_jax.freezing.function_split.jaxprs import Atom, flops, is_literal
from transfer_jax.freezing.function_split.sized_program import Signature, SizedProgram
from transfer_jax.freezing.trees import leaves_by_path


def blocks_by_depth(
    function: Callable[..., Any],
    params: Any,
    batch: Any,
    *,
    key: Any = None,
    state: Any = None,
    blocks: Sequence[str] | Mapping[str, str] | str | None = None,
) -> BlockGroups:
    """Returns the block of each parameter, in the order in which the function uses the blocks.

    The depth of a parameter is the number of matrix products, convolutions and loops between the batch and
    its first use. A block is as deep as its parameter that is nearest to the input, because backward has to
    reach it.

    Example:
        >>> order = blocks_by_depth(function, params, batch)
        >>> found = labels(params, top(2), order)

    Args:
        function: As for `split_frozen`.
        params: A tree of parameters: arrays, or `jax.ShapeDtypeStruct`.
        batch: A tree of arrays or shapes with the examples on axis 0.
        key: A random key; None if the function uses none.
        state: A tree of arrays that are not trained; None if there is none.
        blocks: The grouping, as for `labels`; only names are taken from it, not their order.

    Returns:
        The block of each parameter by path, input side first, and `head` last if there is a block of that
        name.

    Raises:
        SelectorError: If a parameter is in no block.
    """
    groups = group_by_block(leaves_by_path(params), blocks)
    signature = Signature(function, params, frozenset(), state, batch, key)
    depths = _first_uses(SizedProgram(signature, 2))
    unused = (float("inf"), 0)
    order: dict[str, tuple[float, int]] = {}
    for path, block in groups.items():
        order[block] = min(order.get(block, unused), depths.get(path, unused))
    ordered = sorted(groups.items(), key=lambda item: (item[1] == "head", order[item[1]], item[1], item[0]))
    return BlockGroups(ordered)


def _first_uses(program: SizedProgram) -> dict[str, tuple[float, int]]:
    """Returns the depth at which each parameter first meets the batch, and the number of the equation."""
    depth: dict[Atom, int] = dict.fromkeys(program.inputs["batch"].values(), 0)
    sources: dict[Atom, frozenset[str]] = {
        variable: frozenset([path]) for path, variable in program.inputs["params"].items()
    }
    found: dict[str, tuple[float, int]] = {}
    for number, equation in enumerate(program.equations):
        operands = [atom for atom in equation.invars if not is_literal(atom)]
        paths = frozenset[str]().union(*(sources.get(atom, frozenset()) for atom in operands))
        depths = [depth[atom] for atom in operands if atom in depth]
        if not depths:
            sources.update(dict.fromkeys(equation.outvars, paths))
            continue
        below = max(depths)
        for path in paths:
            found[path] = min(found.get(path, (below, number)), (below, number))
        depth.update(dict.fromkeys(equation.outvars, below + (flops(equation) > 0)))
    return found
