"""The cheapest boundary between the frozen and the trainable part of a program: a minimum cut."""

import dataclasses
import math
from collections.abc import Hashable, Iterable, Iterator

from transfer_jax.freezing.function_split.jaxprs import Var, flops, is_literal, size_in_bytes
from transfer_jax.freezing.function_split.min_cut import INFINITE, min_cut
from transfer_jax.freezing.function_split.sized_program import SizedProgram

_SOURCE, _SINK = "source", "sink"
_PER_BYTE = 64
"""Capacity of an edge for each byte of a variable. An array costs one more, so that fewer arrays are
preferred, and an array of the batch one less, so that a label is preferred to its copy."""


@dataclasses.dataclass(frozen=True)
class Boundary:
    """A set of variables that separates the frozen from the trainable part.

    Attributes:
        variables: The variables, in the order of the program; variables of the batch are among them.
        price: Bytes per example of the variables, plus the price of the operations that each step repeats.
    """

    variables: tuple[Var, ...]
    price: float


def find_boundary(
    program: SizedProgram, flops_per_byte: float, excluded: Iterable[Var] = ()
) -> Boundary | None:
    """Returns the boundary with the lowest price, the one nearest to the results if there are several.

    Args:
        program: The program, after `mark`.
        flops_per_byte: Operations that cost as much as a cached byte. Infinity repeats only operations that
            are no matrix products, convolutions or loops, and counts them as free.
        excluded: Variables that may not be part of the boundary.

    Returns:
        The boundary, or None if no set of variables separates the parts.
    """
    edges = _edges(program, flops_per_byte, set(excluded))
    result = min_cut(edges, _SOURCE, _SINK)
    if result is None:
        return None
    price, behind = result
    candidates = [
        *program.inputs["batch"].values(),
        *(each for equation in program.equations for each in equation.outvars),
    ]
    variables = tuple(each for each in candidates if (each, "in") not in behind and (each, "out") in behind)
    return Boundary(variables, price / _PER_BYTE)


def _edges(
    program: SizedProgram, flops_per_byte: float, excluded: set[Var]
) -> Iterator[tuple[Hashable, Hashable, float]]:
    """Yields the edges of the graph.

    A variable is a pair of nodes with an edge of its bytes per example. An edge from the source to an
    equation is the price of repeating it.
    """
    for variable in program.inputs["batch"].values():
        yield _SOURCE, (variable, "in"), INFINITE
        size = _PER_BYTE * bytes_per_example(program, variable) - 1
        yield (variable, "in"), (variable, "out"), INFINITE if variable in excluded else size
    for number, equation in enumerate(program.equations):
        changes = any(each in program.program.causes for each in equation.outvars)
        node = _SINK if changes else ("equation", number)
        for atom in equation.invars:
            if program.is_per_example(atom):
                yield (atom, "out"), node, INFINITE
        if changes:
            continue
        price = _price(flops(equation) / program.examples, flops_per_byte)
        if price:
            yield _SOURCE, node, _PER_BYTE * price
        for result in equation.outvars:
            if program.is_per_example(result):
                yield node, (result, "in"), INFINITE
                size = _PER_BYTE * bytes_per_example(program, result) + 1
                yield (result, "in"), (result, "out"), INFINITE if result in excluded else size
    for result in program.program.outputs:
        if program.is_per_example(result):
            yield (result, "out"), _SINK, INFINITE


def _price(operations: float, flops_per_byte: float) -> float:
    if not operations:
        return 0
    return INFINITE if math.isinf(operations) or math.isinf(flops_per_byte) else operations / flops_per_byte


def bytes_per_example(program: SizedProgram, variable: Var) -> int:
    """Returns the bytes of a variable for each example."""
    assert not is_literal(variable)
    return max(1, size_in_bytes(variable) // program.examples)
