"""A program for one batch size, divided at the variables of the features."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from transfer_jax.freezing.function_split.jaxprs import Equation, Var, as_function, is_literal
from transfer_jax.freezing.function_split.program import live_equations
from transfer_jax.freezing.function_split.sized_program import SizedProgram


@dataclasses.dataclass(frozen=True, eq=False)
class DividedProgram:
    """The program for one batch size, divided at the variables of the features.

    Attributes:
        program: The program.
        cached: The variables of the features.
        prefix: The equations that compute them.
        suffix: The equations that compute the results from them.
    """

    program: SizedProgram
    cached: list[Var]
    prefix: list[Equation]
    suffix: list[Equation]

    @classmethod
    def of(cls, program: SizedProgram, cached: list[Var]) -> "DividedProgram":
        """Returns the parts of a program."""
        equations, outputs = program.equations, program.program.outputs
        prefix, suffix = live_equations(equations, cached), live_equations(equations, outputs, cached)
        return cls(program, cached, prefix, suffix)


def positions_of(program: SizedProgram, variables: Sequence[Var]) -> list[tuple[int, int]]:
    """Returns the number of the equation of each variable, and the position among its results."""
    found = {
        result: (number, index)
        for number, equation in enumerate(program.equations)
        for index, result in enumerate(equation.outvars)
    }
    return [found[each] for each in variables]


def evaluate(
    program: SizedProgram,
    equations: Sequence[Any],
    results: Sequence[Any],
    values: Mapping[Var, Any],
    part: str,
) -> list[Any]:
    """Returns the values of some variables.

    Args:
        program: The program.
        equations: Its equations that compute them.
        results: The variables, or literals.
        values: The values of inputs and constants.
        part: Name of the part of the program, for messages.

    Raises:
        ValueError: If an input is missing; the message names it.
    """
    made = {each for equation in equations for each in equation.outvars}
    needed = {atom for each in equations for atom in each.invars if not is_literal(atom)}
    needed |= {each for each in results if not is_literal(each)}
    missing = [
        f"{path!r} of the {argument}"
        for argument, variables in program.inputs.items()
        for path, variable in variables.items()
        if variable in needed and variable not in values
    ]
    if missing:
        raise ValueError(f"{len(missing)} inputs of {part} are missing, such as {missing[0]}")
    inputs = [each for each in values if each in needed and each not in made]
    return as_function(inputs, results, equations)(*(values[each] for each in inputs))
