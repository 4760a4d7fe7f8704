"""A traced function as one flat list of equations, with the reasons why some are part of each step."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from transfer_jax.freezing.function_split.counted_indices import along_batch_axis
from transfer_jax.freezing.function_split.jaxprs import (
    Atom,
    Equation,
    Var,
    checkpointed_call,
    expanded,
    inner_jaxpr,
    is_checkpoint,
    is_literal,
    new_jaxpr,
    opened,
    source_of,
    struct_of,
    trace,
    variable_like,
)
from transfer_jax.freezing.function_split.stacked_layers import split_scan


@dataclasses.dataclass(frozen=True)
class Cause:
    """The reason why a variable is computed in each step.

    Attributes:
        text: The reason, such as `the trainable parameter blocks.11/kernel`.
        source: File and line of the operation; empty if it is unknown.
        trainable: Whether the variable depends on a trainable parameter.
    """

    text: str
    source: str = ""
    trainable: bool = False


class Program:
    """A flat list of equations.

    Calls of other functions are replaced by their equations where that changes nothing. A custom derivative
    stays where a gradient passes it, a checkpointed call (`jax.checkpoint`) loses its frozen equations, and
    a scan over stacked layers of which the first ones are frozen becomes two scans.

    Attributes:
        equations: The equations in order.
        inputs: The variables of the function's inputs.
        outputs: The variables or literals of its results.
        constants: Values of arrays that the function closes over, by variable.
        makers: The equation that computes each variable.
        causes: The reason why a variable is computed in each step; variables that are frozen are missing.
    """

    _caller: Equation | None = None
    """The call whose equations are being added."""

    def __init__(self) -> None:
        self.equations: list[Equation] = []
        self.inputs: list[Var] = []
        self.outputs: list[Atom] = []
        self.constants: dict[Var, Any] = {}
        self.makers: dict[Var, Equation] = {}
        self.causes: dict[Var, Cause] = {}
        self._callers: dict[Var, Equation] = {}

    @classmethod
    def of_jaxpr(cls, jaxpr: Any, constants: Sequence[Any], causes: Sequence[Cause | None]) -> "Program":
        """Returns the program of a jaxpr.

        Args:
            jaxpr: The jaxpr.
            constants: The values of its constants.
            causes: For each input the reason why it changes from step to step; None if it is frozen.
        """
        program = cls()
        program.inputs = [variable_like(variable) for variable in jaxpr.invars]
        for variable, cause in zip(program.inputs, causes, strict=True):
            if cause is not None:
                program.causes[variable] = cause
        program.outputs = program.inline(jaxpr, constants, program.inputs)
        return program

    def source(self, equation: Equation) -> str:
        """Returns file and line of an equation, or of the call that it belongs to."""
        caller = self._callers.get(equation.outvars[0]) if equation.outvars else None
        return source_of(equation) or (source_of(caller) if caller is not None else "")

    def cause(self, atoms: Iterable[Atom]) -> Cause | None:
        """Returns the cause of some operands, a trainable parameter first; None if all are frozen."""
        causes = [self.causes[atom] for atom in atoms if not is_literal(atom) and atom in self.causes]
        return next((cause for cause in causes if cause.trainable), causes[0] if causes else None)

    def inline(self, jaxpr: Any, constants: Sequence[Any], inputs: Sequence[Atom]) -> list[Atom]:
        """Appends the equations of a jaxpr and returns its results.

        Args:
            jaxpr: The jaxpr.
            constants: The values of its constants.
            inputs: The operands in place of its inputs.
        """
        known: dict[Any, Atom] = dict(zip(jaxpr.invars, inputs, strict=True))
        for variable, value in zip(jaxpr.constvars, constants, strict=True):
            known[variable] = new = variable_like(variable)
            self.constants[new] = value

        def read(atom: Atom) -> Atom:
            return atom if is_literal(atom) else known[atom]

        for equation in jaxpr.eqns:
            results = self._add(equation, [read(atom) for atom in equation.invars])
            known.update(zip(equation.outvars, results, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def append(
        self, equation: Equation, operands: Sequence[Atom], results: Sequence[Var] | None = None
    ) -> list[Var]:
        """Appends an equation with other operands, and returns its results: new variables by default."""
        results = [variable_like(each) for each in equation.outvars] if results is None else [*results]
        new = equation.replace(invars=list(operands), outvars=results)
        self._append(new, self.cause(operands))
        return results

    def traced_inline(self, function: Callable[..., Any], *operands: Atom) -> Atom:
        """Appends the equations of a function of some operands, and returns its result."""
        jaxpr, constants, _ = trace(function, *map(struct_of, operands))
        return self.inline(jaxpr, constants, operands)[0]

    def _append(self, equation: Equation, cause: Cause | None) -> None:
        self.equations.append(equation)
        for result in equation.outvars:
            self.makers[result] = equation
            if self._caller is not None:
                self._callers[result] = self._caller
            if cause is not None:
                self.causes[result] = cause

    def _add(self, equation: Equation, operands: list[Atom]) -> list[Atom]:
        name, frozen = equation.primitive.name, self.cause(operands) is None
        inner = inner_jaxpr(equation)
        if inner is not None:
            if is_checkpoint(equation) and not frozen:
                return self._add_checkpointed(equation, *inner, operands)
            if name.startswith("custom") and not frozen:
                return [*self.append(equation, operands)]
            return self._add_call(equation, *inner, operands)
        if name == "scan" and not frozen:
            results = split_scan(self, equation, operands)
            if results is not None:
                return results
        if name == "call_hi_primitive" and frozen and (inner := expanded(equation)):
            return self._add_call(equation, *inner, operands)
        counted = along_batch_axis(self, equation, operands)
        if counted is not None:
            return [*self.append(counted, counted.invars)]
        return [*self.append(equation, operands)]

    def _add_call(
        self, call: Equation, jaxpr: Any, constants: Sequence[Any], operands: list[Atom]
    ) -> list[Atom]:
        """Appends the equations of a call."""
        outer = self._caller
        self._caller = call if source_of(call) or outer is None else outer
        results = self.inline(jaxpr, constants, operands)
        self._caller = outer
        return results

    def _add_checkpointed(
        self, call: Equation, jaxpr: Any, constants: Sequence[Any], operands: list[Atom]
    ) -> list[Atom]:
        """Appends the frozen equations of a checkpointed call, and a checkpointed call of the others."""
        first = len(self.equations)
        outputs = self._add_call(call, jaxpr, constants, operands)
        body = self.equations[first:]
        others = [each for each in body if self.cause(each.outvars) is not None]
        self.equations[first:] = [each for each in body if self.cause(each.outvars) is None]
        made = {result for each in others for result in each.outvars}
        free = dict.fromkeys(
            atom for each in others for atom in each.invars if not is_literal(atom) and atom not in made
        )
        needed = [*dict.fromkeys(each for each in outputs if not is_literal(each) and each in made)]
        if not needed:
            return outputs
        inner = checkpointed_call(call, new_jaxpr([*free], needed, others))
        self._append(inner, self.cause(free))
        renamed = dict(zip(needed, inner.outvars, strict=True))
        return [each if is_literal(each) else renamed.get(each, each) for each in outputs]


def live_equations(
    equations: Sequence[Equation], outputs: Iterable[Atom], known: Iterable[Var] = ()
) -> list[Equation]:
    """Returns the equations that results need, in order.

    Args:
        equations: The equations of a program.
        outputs: The results.
        known: Variables that are given, so that what only they need is left out.
    """
    known = set(known)
    needed = {atom for atom in outputs if not is_literal(atom)} - known
    chosen = []
    for equation in reversed(equations):
        if any(result in needed for result in equation.outvars):
            chosen.append(equation)
            needed |= {atom for atom in equation.invars if not is_literal(atom)} - known
    return chosen[::-1]


def differs(first: Equation, second: Equation) -> bool:
    """Returns True if equations of programs for two batch sizes compute with different numbers.

    Shapes may differ; literals, counts of iterations and other scalar parameters may not.
    """
    if first.primitive.name != second.primitive.name:
        return True
    for one, other in zip(first.invars, second.invars, strict=True):
        if is_literal(one) != is_literal(other) or (is_literal(one) and not _same(one.val, other.val)):
            return True
    for name, value in first.params.items():
        other = second.params.get(name)
        if isinstance(value, (bool, int, float)) and not _same(value, other):
            return True
        for one, another in zip(_jaxprs(value), _jaxprs(other), strict=False):
            if len(one.eqns) != len(another.eqns) or any(map(differs, one.eqns, another.eqns)):
                return True
    return False


def _same(one: Any, other: Any) -> bool:
    return str(one) == str(other)  # Two NaN are the same number here.


def _jaxprs(value: Any) -> list[Any]:
    values = value if isinstance(value, (tuple, list)) else (value,)
    return [opened(each)[0] for each in values if hasattr(each, "eqns")]
