"""The operations of a training step: the forward pass, and the backward pass as far as it has to reach."""

from collections.abc import Iterable, Sequence

import jax.numpy as jnp

from transfer_jax.freezing.function_split.jaxprs import (
    Atom,
    Equation,
    Var,
    branches_of,
    flops,
    inner_jaxpr,
    is_checkpoint,
    is_literal,
    is_saved,
    opened,
    scan_counts,
)

_PRODUCTS = ("dot_general", "conv_general_dilated")
_WITHOUT_GRADIENT = ("stop_gradient", "argmax", "argmin", "sign", "floor", "ceil", "round")


def step_flops(equations: Sequence[Equation], trainable: Iterable[Var]) -> float:
    """Returns the floating-point operations of a training step.

    The forward pass of each matrix product and convolution counts once. Its backward pass counts once for
    each operand that depends on a trainable parameter. Operations inside of a checkpointed call count once
    more if its policy does not save them.

    Args:
        equations: The equations of the forward pass.
        trainable: The variables of the trainable parameters.
    """
    return sum(map(flops, equations)) + _backward(equations, set(trainable))


def _backward(equations: Iterable[Equation], differentiated: set[Var]) -> float:
    """Returns the operations of a backward pass, and adds all variables that a gradient passes."""
    total = 0.0
    for equation in equations:
        passes = [not is_literal(atom) and atom in differentiated for atom in equation.invars]
        if not any(passes) or equation.primitive.name in _WITHOUT_GRADIENT:
            continue
        count, results = _backward_of(equation, passes)
        total += count
        differentiated.update(
            each for each, passed in zip(equation.outvars, results, strict=True) if passed and _is_real(each)
        )
    return total


def _is_real(atom: Atom) -> bool:
    return jnp.issubdtype(atom.aval.dtype, jnp.inexact)


def _backward_of(equation: Equation, passes: list[bool]) -> tuple[float, list[bool]]:
    """Returns the operations of the backward pass of an equation, and its results that a gradient passes."""
    name, every = equation.primitive.name, [True] * len(equation.outvars)
    if name in _PRODUCTS:
        return flops(equation) * sum(passes[:2]), every
    if name == "scan":
        return _backward_of_scan(equation, passes)
    if name == "cond":
        counts, results = zip(
            *(_within(opened(each)[0], passes[1:]) for each in branches_of(equation)), strict=True
        )
        return max(counts), [any(each) for each in zip(*results, strict=True)]
    inner = inner_jaxpr(equation)
    if inner is None:
        return flops(equation), every
    count, results = _within(inner[0], passes)
    if is_checkpoint(equation):
        count += sum(flops(each) for each in inner[0].eqns if not is_saved(equation, each))
    return count, results


def _within(jaxpr, passes: Sequence[bool]) -> tuple[float, list[bool]]:
    """Returns the same for a jaxpr."""
    differentiated = {each for each, passed in zip(jaxpr.invars, passes, strict=True) if passed}
    differentiated = {each for each in differentiated if _is_real(each)}
    count = _backward(jaxpr.eqns, differentiated)
    return count, [not is_literal(each) and each in differentiated for each in jaxpr.outvars]


def _backward_of_scan(scan: Equation, passes: list[bool]) -> tuple[float, list[bool]]:
    constants, carried = scan_counts(scan)
    jaxpr, _ = opened(scan.params["jaxpr"])
    while True:
        count, results = _within(jaxpr, passes)
        after = passes.copy()
        for index in range(carried):
            after[constants + index] |= results[index]
        if after == passes:
            return scan.params["length"] * count, results
        passes = after
