"""The places of the examples in all variables of a program, one equation after the other."""

from collections.abc import Sequence
from typing import Any

from transfer_jax.freezing.function_split import (  # noqa: F401  They register rules.
    compute_rules,
    gather_rule,
    scatter_rule,
    shape_rules,
)
from transfer_jax.freezing.function_split.examples import Mixed, MixedError, PerExample, Place, Shared, joined
from transfer_jax.freezing.function_split.jaxprs import (
    Equation,
    branches_of,
    inner_jaxpr,
    is_literal,
    name_of,
    opened,
    scan_counts,
    shape_of,
)
from transfer_jax.freezing.function_split.rules import RULES, Operation
from transfer_jax.freezing.function_split.shared_rules import shared_results

_ITERATIONS = 10
"""Largest number of passes over the body of a loop until the places of its carried values are stable."""


def literal_place(atom: Any) -> Shared:
    """Returns the place of a literal, which is a scalar."""
    return Shared(frozenset(range(len(shape_of(atom)))))


def places_of_results(equation: Equation, places: Sequence[Place], examples: int) -> list[Place]:
    """Returns the place of the examples in each result of an equation.

    Args:
        equation: The equation.
        places: The place of the examples in each operand.
        examples: Number of examples of the batch.
    """
    count = len(equation.outvars)
    for place in places:
        if isinstance(place, Mixed):
            return [place] * count
    batched = any(isinstance(place, PerExample) for place in places)
    try:
        if equation.primitive.name in _NESTED:
            return _NESTED[equation.primitive.name](equation, list(places), examples)
        if inner := inner_jaxpr(equation):
            return places_in(*inner, places, examples)
        operation = Operation(
            name=equation.primitive.name,
            parameters=equation.params,
            places=list(places),
            shapes=[shape_of(atom) for atom in equation.invars],
            results=[shape_of(atom) for atom in equation.outvars],
            examples=examples,
        )
        if not batched:
            return [*shared_results(operation)]
        if operation.name not in RULES:
            raise MixedError("has no rule that keeps the examples apart")
        return RULES[operation.name](operation)
    except MixedError as error:
        return [Mixed(f"{name_of(equation)} {error}")] * count


def places_in(jaxpr: Any, constants: Sequence[Any], places: Sequence[Place], examples: int) -> list[Place]:
    """Returns the places of the examples in the results of a jaxpr.

    Args:
        jaxpr: The jaxpr.
        constants: The values of its constants.
        places: The place of the examples in each of its inputs.
        examples: Number of examples of the batch.
    """
    known: dict[Any, Place] = {variable: Shared() for variable in jaxpr.constvars}
    known.update(zip(jaxpr.invars, places, strict=True))

    def place(atom: Any) -> Place:
        return literal_place(atom) if is_literal(atom) else known[atom]

    for equation in jaxpr.eqns:
        results = places_of_results(equation, [place(atom) for atom in equation.invars], examples)
        known.update(zip(equation.outvars, results, strict=True))
    return [place(atom) for atom in jaxpr.outvars]


def _cond(equation: Equation, places: list[Place], examples: int) -> list[Place]:
    if isinstance(places[0], PerExample):
        raise MixedError("has a predicate that depends on examples")
    branches = [places_in(*opened(each), places[1:], examples) for each in branches_of(equation)]
    return [
        joined([branch[index] for branch in branches], shape_of(result))
        for index, result in enumerate(equation.outvars)
    ]


def _while(equation: Equation, places: list[Place], examples: int) -> list[Place]:
    parameters = equation.params
    of_condition, of_body = parameters["cond_nconsts"], parameters["body_nconsts"]
    first = of_condition + of_body
    condition, body = opened(parameters["cond_jaxpr"]), opened(parameters["body_jaxpr"])
    carried = _stable(
        places[first:],
        lambda carried: places_in(*body, [*places[of_condition:first], *carried], examples),
        equation.outvars,
    )
    bound = places_in(*condition, [*places[:of_condition], *carried], examples)
    if not all(isinstance(place, Shared) for place in bound):
        raise MixedError("has a condition that depends on examples")
    return carried


def _scan(equation: Equation, places: list[Place], examples: int) -> list[Place]:
    constants, carried_count = scan_counts(equation)
    first = constants + carried_count
    jaxpr, values = opened(equation.params["jaxpr"])
    stacked = [_without_first_axis(place) for place in places[first:]]

    def body(carried: list[Place]) -> list[Place]:
        return places_in(jaxpr, values, [*places[:constants], *carried, *stacked], examples)

    carried = _stable(
        places[constants:first], lambda each: body(each)[:carried_count], equation.outvars[:carried_count]
    )
    return carried + [_with_first_axis(place) for place in body(carried)[carried_count:]]


def _stable(carried: list[Place], body: Any, results: Sequence[Any]) -> list[Place]:
    """Returns the places of carried values that a further iteration leaves unchanged."""
    for _ in range(_ITERATIONS):
        after = body(carried)
        new = [
            joined([before, then], shape_of(result))
            for before, then, result in zip(carried, after, results, strict=True)
        ]
        if new == carried:
            return carried
        carried = new
    raise MixedError("has carried values whose axis of examples changes in each iteration")


def _without_first_axis(place: Place) -> Place:
    if isinstance(place, PerExample):
        if place.axis == 0:
            raise MixedError("loops over the examples")
        return place.moved(place.axis - 1)
    return Shared(frozenset(axis - 1 for axis in place.equal if axis)) if isinstance(place, Shared) else place


def _with_first_axis(place: Place) -> Place:
    if isinstance(place, PerExample):
        return place.moved(place.axis + 1)
    return Shared(frozenset(axis + 1 for axis in place.equal)) if isinstance(place, Shared) else place


def _linear_solve(equation: Equation, places: list[Place], examples: int) -> list[Place]:
    lengths, programs = equation.params["const_lengths"], equation.params["jaxprs"]
    first = lengths.matvec + lengths.vecmat
    right = places[sum(lengths) :]
    return places_in(*opened(programs.solve), [*places[first : first + lengths.solve], *right], examples)


_NESTED = {"custom_linear_solve": _linear_solve, "cond": _cond, "while": _while, "scan": _scan}
