"""The features of a function at several depths, which one program computes."""

import copy
import dataclasses
import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from transfer_jax.freezing.function_split.block_depth import blocks_by_depth
from transfer_jax.freezing.function_split.boundary import Boundary, find_boundary
from transfer_jax.freezing.function_split.checks import check_frozen_state
from transfer_jax.freezing.function_split.jaxprs import Equation, Var, is_literal
from transfer_jax.freezing.function_split.program import Cause, live_equations
from transfer_jax.freezing.function_split.sized_program import Signature, SizedProgram
from transfer_jax.freezing.function_split.split import Feature, Split


@dataclasses.dataclass(frozen=True)
class DepthSplit:
    """The features behind several blocks of a function.

    Attributes:
        blocks: The blocks of the function that have parameters, input side first.
        features: The features by the name of their block, or `BLOCK/0`, `BLOCK/1` … if there are several.
    """

    blocks: tuple[str, ...]
    features: dict[str, Feature]
    _split: Split
    _names: Mapping[str, str]

    def prefix(self, params: Any, batch: Any, state: Any = None) -> dict[str, jax.Array]:
        """Computes the features of a batch of any size.

        Args:
            params: The parameters; those that no feature depends on may be missing.
            batch: The batch.
            state: The state; None if there is none.

        Returns:
            The features by name, with the examples on axis 0.
        """
        found = self._split.prefix(params, batch, state)
        return {name: found[each] for name, each in self._names.items()}

    def digest(self, params: Any, state: Any = None) -> str:
        """Returns a hash of the operations, and of the parameters and the state that they use."""
        return self._split.digest(params, state)


def split_at_depths(
    function: Callable[..., Any],
    params: Any,
    batch: Any,
    at: Sequence[str] | str | None = None,
    *,
    state: Any = None,
    blocks: Sequence[str] | Mapping[str, str] | str | None = None,
) -> DepthSplit:
    """Finds the features behind blocks of a function: the narrowest arrays between a block and the next one.

    They are those that `split_frozen` finds if the parameters up to a block are frozen. Operations that
    several depths share are in the program once, and those behind the last depth are not in it.

    Example:
        >>> depths = split_at_depths(function, params, batch, ["layers/1", "layers/3"])
        >>> features = jax.jit(depths.prefix)(params, batch)

    Args:
        function: As for `split_frozen`; its random key is None.
        params: A tree of parameters: arrays, or `jax.ShapeDtypeStruct`.
        batch: A tree of arrays or shapes with the examples on axis 0.
        at: Names of blocks, as `blocks_by_depth` returns them; `all` for all blocks; None for the last block
            but one, whose features a head reads.
        state: As for `split_frozen`.
        blocks: The grouping, as for `labels`. None takes the first parts of the paths.

    Raises:
        ValueError: If a name is not a block, a block has no features because the function mixes examples, or
            the function changes its state.
    """
    groups = blocks_by_depth(function, params, batch, state=state, blocks=blocks)
    signature = Signature(function, params, frozenset(), state, batch, None)
    examples = max(2, jax.tree.leaves(batch)[0].shape[0])
    program, other = SizedProgram(signature, examples), SizedProgram(signature, 2 * examples)
    mixing = program.mark(other if len(other.equations) == len(program.equations) else None)
    check_frozen_state(program)
    order = _used_blocks(program, groups)
    found: dict[str, list[Var]] = {}
    for name in chosen_blocks(at, order):
        later = {*order[order.index(name) + 1 :]}
        found[name] = _features_behind(program, {path for path, block in groups.items() if block in later})
        own = {program.inputs["params"][path] for path, block in groups.items() if block == name}
        if not found[name] or (mixing and not own & _used(live_equations(program.equations, found[name]))):
            if at != "all":
                reason = f": {mixing[0].text} ({mixing[0].source})" if mixing else ""
                raise ValueError(f"block {name!r} has no features of single examples{reason}")
            del found[name]
    variables = [*dict.fromkeys(variable for each in found.values() for variable in each)]
    split = Split(signature, program, Boundary(tuple(variables), math.inf), mixing, math.inf)
    names = dict(zip(variables, split.features, strict=True))
    by_name = {
        name if len(each) == 1 else f"{name}/{index}": names[variable]
        for name, each in found.items()
        for index, variable in enumerate(each)
    }
    features = {name: split.features[each] for name, each in by_name.items()}
    return DepthSplit(tuple(order), features, split, by_name)


def chosen_blocks(at: Sequence[str] | str | None, blocks: Sequence[str]) -> list[str]:
    """Returns the blocks that `at` names, in the order of the blocks.

    Args:
        at: A name or several, `all`, or None for the last block but one.
        blocks: The names of all blocks, input side first.

    Raises:
        ValueError: If a name is not a block.
    """
    if at is None:
        return [blocks[max(0, len(blocks) - 2)]]
    if isinstance(at, str) and at == "all":
        return [*blocks]
    names = [at] if isinstance(at, str) else [*at]
    if not names:
        raise ValueError(f"at names no block. The blocks are {', '.join(blocks)}")
    for name in names:
        if name not in blocks:
            near = difflib.get_close_matches(str(name), blocks, n=3)
            hint = f"; did you mean {', '.join(near)}?" if near else "."
            raise ValueError(f"no block {name!r}{hint} The blocks are {', '.join(blocks)}")
    return [name for name in blocks if name in names]


def _used_blocks(program: SizedProgram, groups: Mapping[str, str]) -> list[str]:
    """Returns the blocks that affect the results, in order."""
    used, inputs = _used(program.equations), program.inputs["params"]
    return [*dict.fromkeys(block for path, block in groups.items() if inputs[path] in used)]


def _used(equations: Sequence[Equation]) -> set[Var]:
    return {atom for each in equations for atom in each.invars if not is_literal(atom)}


def _features_behind(program: SizedProgram, later: set[str]) -> list[Var]:
    """Returns the narrowest variables between the batch and what depends on some parameters.

    Args:
        program: The program, after `mark`.
        later: Paths of the parameters of the blocks above; without any, the variables are those that the
            results depend on.
    """
    view = copy.copy(program)
    view.program = copy.copy(program.program)
    causes = view.program.causes = dict(program.program.causes)
    causes.update({program.inputs["params"][path]: Cause(path, trainable=True) for path in later})
    for equation in program.equations:
        cause = view.program.cause(equation.invars)
        if cause is not None:
            causes.update(dict.fromkeys(equation.outvars, cause))
    if later:  # Results that the blocks above do not change are no features for them.
        outputs = view.program.outputs
        view.program.outputs = [each for each in outputs if not is_literal(each) and each in causes]
    boundary = find_boundary(view, math.inf)
    batch = {*program.inputs["batch"].values()}
    return [each for each in boundary.variables if each not in batch] if boundary else []
