"""The multiply-adds and the memory traffic of a function, counted without running or compiling it."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.extend import core


def multiply_adds(function: Callable[..., Any], *args: Any) -> int:
    """Counts the multiply-adds of a function's convolutions and matrix products; papers call them FLOPs.

    Args:
        function: A pure function.
        *args: Its arguments: arrays, or `jax.ShapeDtypeStruct`.

    Returns:
        The count. Of several branches, the most expensive one counts, apart from those for TPUs, whose
        kernels have zeros. The body of a loop counts as often as it runs, or once if that depends on data.
    """
    return jaxpr_multiply_adds(jax.make_jaxpr(function)(*args).jaxpr)


def jaxpr_multiply_adds(jaxpr: core.Jaxpr) -> int:
    """Counts the multiply-adds of a traced function; see `multiply_adds`."""
    return _total(jaxpr, _multiply_adds)


def jaxpr_operand_bytes(jaxpr: core.Jaxpr) -> int:
    """Counts the bytes of the operands and results of a traced function's convolutions and matrix products.

    Other operations are mostly fused with these. Branches and loops count as in `multiply_adds`.
    """
    return _total(jaxpr, _operand_bytes)


def jaxpr_equations(jaxpr: core.Jaxpr) -> int:
    """Counts the operations in the text of a traced function: the body of a loop counts once."""
    return sum(1 + sum(map(jaxpr_equations, _inner(equation))) for equation in jaxpr.eqns)


def _total(jaxpr: core.Jaxpr, count: Callable[[Any], int]) -> int:
    """Returns the sum of the counts of all convolutions and matrix products."""
    return sum(_of_equation(equation, count) for equation in jaxpr.eqns)


def _of_equation(equation: Any, count: Callable[[Any], int]) -> int:
    name, params = equation.primitive.name, equation.params
    if name in ("dot_general", "conv_general_dilated"):
        return count(equation)
    inner = [_total(jaxpr, count) for jaxpr in _inner(equation)]
    if name == "cond":
        platforms = params.get("branches_platforms") or [None] * len(inner)
        return max(each for each, of in zip(inner, platforms, strict=True) if of != ("tpu",))
    times = params["length"] if name == "scan" else 1
    if name == "shard_map":  # Its body is the program of one device.
        times = math.prod(params["mesh"].shape[axis] for axis in params["newly_manual_axes"])
    return sum(inner) * times


def _multiply_adds(equation: Any) -> int:
    result, operand, params = equation.outvars[0].aval, equation.invars[0].aval, equation.params
    if equation.primitive.name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        return result.size * math.prod(operand.shape[axis] for axis in contracted)
    kernel = equation.invars[1].aval
    return result.size * kernel.size // kernel.shape[params["dimension_numbers"].rhs_spec[0]]


def _operand_bytes(equation: Any) -> int:
    arrays = [each.aval for each in (*equation.invars, *equation.outvars)]
    return sum(array.size * array.dtype.itemsize for array in arrays)


def _inner(equation: Any) -> Iterator[core.Jaxpr]:
    """Yields the traced functions in the parameters of an operation, such as the body of a loop."""
    for value in equation.params.values():
        yield from _jaxprs(value)


def _jaxprs(value: Any) -> Iterator[Any]:
    if isinstance(value, core.Jaxpr):
        yield value
    elif isinstance(getattr(value, "jaxpr", None), core.Jaxpr):  # closed over constants
        yield value.jaxpr
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _jaxprs(item)
