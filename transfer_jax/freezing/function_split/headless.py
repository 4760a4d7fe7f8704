"""A function without its last part: the features that its head reads."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax

from transfer_jax.freezing.function_split.jaxprs import Atom, Var, as_function, is_literal
from transfer_jax.freezing.function_split.program import live_equations
from transfer_jax.freezing.function_split.sized_program import Signature, SizedProgram
from transfer_jax.freezing.trees import leaves_by_path


def without_head(
    function: Callable[..., Any], head: Mapping[str, jax.ShapeDtypeStruct]
) -> Callable[..., Any]:
    """Returns the function that computes what the parameters of the head are applied to.

    The function is traced in each call, and ends at the array that meets the first parameter of the head.

    Args:
        function: `function(params, state, batch, key) -> (outputs, new_state)`, with flat parameters and a
            flat state: dictionaries by path.
        head: Shapes of the parameters of the head by path.

    Returns:
        A function of the same arguments, with parameters that lack those of the head. It returns the features
        and the new state. States of the head stay as they are.

    Raises:
        ValueError: If the head reads several arrays, or none (when the returned function is called).
    """

    def features(params: Mapping[str, Any], state: Mapping[str, Any], batch: Any, key: Any) -> Any:
        dtype = next((each.dtype for each in params.values()), None)
        of_head = {path: jax.ShapeDtypeStruct(each.shape, dtype or each.dtype) for path, each in head.items()}
        examples = jax.tree.leaves(batch)[0].shape[0]
        signature = Signature(function, {**params, **of_head}, frozenset(head), state, batch, key)
        program = SizedProgram(signature, examples)
        read = _read_by_head(program, head)
        old = program.inputs["state"]
        new = program.program.outputs[len(program.program.outputs) - len(old) :]
        after = [old[path] if _depends(program, each) else each for path, each in zip(old, new, strict=True)]
        results = [read, *after]
        arguments = {"params": params, "state": state, "batch": batch, "key": key}
        values = dict(program.program.constants)
        for name, tree in arguments.items():
            given = leaves_by_path(tree)
            values |= {
                variable: given[path] for path, variable in program.inputs[name].items() if path in given
            }
        equations = live_equations(program.equations, results)
        needed = {atom for each in equations for atom in each.invars if not is_literal(atom)}
        needed |= {each for each in results if not is_literal(each)}
        inputs = [each for each in values if each in needed]
        found, *states = as_function(inputs, results, equations)(*(values[each] for each in inputs))
        return found, dict(zip(old, states, strict=True))

    return features


def _read_by_head(program: SizedProgram, head: Collection[str]) -> Var:
    """Returns the variable that depends on the batch and that the parameters of the head are applied to."""
    of_batch = program.depends_on_batch()
    found: dict[Var, None] = {}
    for equation in program.equations:
        operands = [each for each in equation.invars if not is_literal(each)]
        if any(_depends(program, each) for each in operands):
            found |= {each: None for each in operands if each in of_batch and not _depends(program, each)}
    if len(found) != 1:
        raise ValueError(
            f"the head ({', '.join(sorted(head)[:3])}, …) reads {len(found)} arrays of shapes "
            f"{[each.aval.shape for each in found]}; name the parameters of the last layer only"
        )
    return next(iter(found))


def _depends(program: SizedProgram, atom: Atom) -> bool:
    """Returns True if a value depends on a parameter of the head."""
    if is_literal(atom):
        return False
    cause = program.program.causes.get(atom)
    return cause is not None and cause.trainable
