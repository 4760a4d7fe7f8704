"""The program of a function for one batch size, with the place of the examples in each frozen variable."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from transfer_jax.freezing.function_split.examples import Mixed, PerExample, Place, Shared
from transfer_jax.freezing.function_split.interpret import literal_place, places_of_results
from transfer_jax.freezing.function_split.jaxprs import (
    Atom,
    Equation,
    Var,
    is_literal,
    shape_of,
    trace,
)
from transfer_jax.freezing.function_split.program import Cause, Program, differs, live_equations
from transfer_jax.freezing.trees import leaves_by_path

_LARGEST_CONSTANT = 1 << 20
"""Largest total size of the arrays that a function closes over, in bytes."""


@dataclasses.dataclass(frozen=True)
class Signature:
    """A function with the trees of its arguments.

    Attributes:
        function: `function(params, state, batch, key)`.
        params: The tree of the parameters, of arrays or shapes.
        trainable: Paths of the trainable parameters.
        state: The tree of the state; None if the function has none.
        batch: The tree of the batch; examples are on axis 0.
        key: The random key; None if the function uses none.
    """

    function: Callable[..., Any]
    params: Any
    trainable: frozenset[str]
    state: Any
    batch: Any
    key: Any

    def with_examples(self, examples: int) -> Any:
        """Returns the shapes of a batch of another size."""

        def resized(leaf: Any) -> jax.ShapeDtypeStruct:
            dtype = jax.dtypes.canonicalize_dtype(leaf.dtype, allow_extended_dtype=True)  # NumPy has 64 bits.
            return jax.ShapeDtypeStruct((examples, *np.shape(leaf)[1:]), dtype)

        return jax.tree.map(resized, self.batch)


class SizedProgram:
    """The program of a function for one batch size.

    Args:
        signature: The function and its arguments.
        examples: Number of examples of the batch.

    Attributes:
        examples: Number of examples of the batch.
        program: The flat program.
        equations: The equations that the results need.
        inputs: The variables of each argument by path: `params`, `state`, `batch` and `key`.
        moving: Paths of the leaves of the state that the function changes.
        results: The tree of the shapes of the results.
        places: The place of the examples in each frozen variable, after `mark`.

    Raises:
        ValueError: If the function has side effects, or closes over large arrays.
    """

    def __init__(self, signature: Signature, examples: int) -> None:
        self.examples = examples
        arguments = {
            "params": signature.params,
            "state": signature.state,
            "batch": signature.with_examples(examples),
            "key": signature.key,
        }
        jaxpr, constants, self.results = trace(signature.function, *arguments.values())
        self.moving = _moving_leaves(signature.state, jaxpr, arguments)
        causes = []
        for name, tree in arguments.items():
            causes += [_cause(name, path, signature.trainable, self.moving) for path in leaves_by_path(tree)]
        self.program = Program.of_jaxpr(jaxpr, constants, causes)
        self.inputs, rest = {}, iter(self.program.inputs)
        for name, tree in arguments.items():
            self.inputs[name] = {path: next(rest) for path in leaves_by_path(tree)}
        _check_effects(self.program)
        _check_constants(self.program.constants)
        self.equations = live_equations(self.program.equations, self.program.outputs)
        self.places: dict[Var, Place] = {}

    def mark(self, other: "SizedProgram | None" = None) -> list[Cause]:
        """Finds the place of the examples in all frozen variables.

        Operations that mix examples, and all that follows them, are computed in each step.

        Args:
            other: The program for another batch size. An operation whose numbers differ depends on the batch
                size, and counts as one that mixes examples.

        Returns:
            The operations that mix examples, each once.
        """
        program, places = self.program, self.places
        for name in ("params", "state"):
            places.update({variable: Shared() for variable in self.inputs[name].values()})
        places.update({variable: Shared() for variable in program.constants})
        places.update({variable: PerExample(0) for variable in self.inputs["batch"].values()})
        unequal = {} if other is None else _unequal_constants(self, other)
        found: list[Cause] = []
        for index, equation in enumerate(self.equations):
            cause = program.cause([*equation.outvars, *equation.invars])
            if cause is None:
                cause, results = self._marked(
                    equation, unequal, None if other is None else other.equations[index]
                )
                places.update(zip(equation.outvars, results, strict=True))
                if cause is not None:
                    found.append(cause)
            if cause is not None:
                program.causes.update(dict.fromkeys(equation.outvars, cause))
        return found

    def _marked(
        self, equation: Equation, unequal: Mapping[Var, str], other: Equation | None
    ) -> tuple[Cause | None, list[Place]]:
        operands = [
            literal_place(each) if is_literal(each) else self.places[each] for each in equation.invars
        ]
        results = places_of_results(equation, operands, self.examples)
        mixed = next((place.reason for place in results if isinstance(place, Mixed)), None)
        if mixed is None and other is not None and differs(equation, other):
            mixed = f"{equation.primitive.name} uses a number that depends on the batch size"
        if mixed is None:
            mixed = next(
                (unequal[each] for each in equation.invars if not is_literal(each) and each in unequal), None
            )
        return (None if mixed is None else Cause(mixed, self.program.source(equation))), results

    def is_per_example(self, atom: Atom) -> bool:
        """Returns True if a variable is frozen and has the examples apart, so that it can be cached."""
        if is_literal(atom) or atom in self.program.causes:
            return False
        return isinstance(self.places.get(atom), PerExample)

    def depends_on_batch(self) -> set[Var]:
        """Returns all variables that depend on the batch."""
        found = set(self.inputs["batch"].values())
        for equation in self.equations:
            if any(not is_literal(atom) and atom in found for atom in equation.invars):
                found.update(equation.outvars)
        return found


def _cause(argument: str, path: str, trainable: frozenset[str], moving: frozenset[str]) -> Cause | None:
    if argument == "params" and path in trainable:
        return Cause(f"the trainable parameter {path}", trainable=True)
    if argument == "state" and path in moving:
        return Cause(f"the state {path}, which each step changes")
    if argument == "key":
        return Cause("a random key")
    return None


def _moving_leaves(state: Any, jaxpr: Any, arguments: Mapping[str, Any]) -> frozenset[str]:
    """Returns the paths of the leaves of the state that the function does not return unchanged."""
    paths = [*leaves_by_path(state)]
    if not paths:
        return frozenset()
    first = len(leaves_by_path(arguments["params"]))
    before, after = jaxpr.invars[first : first + len(paths)], jaxpr.outvars[len(jaxpr.outvars) - len(paths) :]
    return frozenset(path for path, old, new in zip(paths, before, after, strict=True) if old is not new)


def _check_effects(program: Program) -> None:
    for equation in program.equations:
        if equation.effects:
            raise ValueError(
                f"the function has a side effect: {equation.primitive.name} at {program.source(equation)}; "
                "remove it, because cached features are computed once"
            )


def _check_constants(constants: Mapping[Var, Any]) -> None:
    sizes = {id(value): np.size(value) * value.dtype.itemsize for value in constants.values()}
    if sum(sizes.values()) > _LARGEST_CONSTANT:
        shapes = sorted((shape_of(each) for each in constants), key=np.prod, reverse=True)[:3]
        raise ValueError(
            f"the function closes over {sum(sizes.values()) / 1e6:.1f} MB of arrays, the largest of the "
            f"shapes {shapes}; pass them in `params` or `state`"
        )


def _unequal_constants(one: SizedProgram, other: SizedProgram) -> dict[Var, str]:
    """Returns the constants whose values depend on the batch size, with a description."""
    pairs = zip(one.program.constants.items(), other.program.constants.values(), strict=False)
    return {
        variable: "a constant depends on the batch size"
        for (variable, value), another in pairs
        if np.shape(value) == np.shape(another) and value is not another and not _equal(value, another)
    }


def _equal(one: Any, other: Any) -> bool:
    if jnp.issubdtype(one.dtype, jax.dtypes.prng_key):
        one, other = jax.random.key_data(one), jax.random.key_data(other)
    return bool(np.array_equal(np.asarray(one), np.asarray(other)))
