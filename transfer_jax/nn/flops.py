"""The number of multiply-adds of a function, counted without running or compiling it."""

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
        The count. Of several branches, the most expensive one counts. The body of a loop counts as often as
        it runs, or once if that depends on data.
    """
    return jaxpr_multiply_adds(jax.make_jaxpr(function)(*args).jaxpr)


def jaxpr_multiply_adds(jaxpr: core.Jaxpr) -> int:
    """Counts the multiply-adds of a traced function; see `multiply_adds`."""
    return sum(map(_equation_multiply_adds, jaxpr.eqns))


def _equation_multiply_adds(equation: Any) -> int:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        depth = math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
        return equation.outvars[0].aval.size * depth
    if name == "conv_general_dilated":
        kernel = equation.invars[1].aval
        return (
            equation.outvars[0].aval.size
            * kernel.size
            // kernel.shape[params["dimension_numbers"].rhs_spec[0]]
        )
    inner = [jaxpr_multiply_adds(jaxpr) for value in params.values() for jaxpr in _jaxprs(value)]
    if name == "cond":
        return max(inner)
    times = params["length"] if name == "scan" else 1
    if name == "shard_map":  # Its body is the program of one device.
        times = math.prod(params["mesh"].shape[axis] for axis in params["newly_manual_axes"])
    return sum(inner) * times


def _jaxprs(value: Any) -> Iterator[Any]:
    if isinstance(value, core.Jaxpr):
        yield value
    elif isinstance(getattr(value, "jaxpr", None), core.Jaxpr):  # closed over constants
        yield value.jaxpr
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _jaxprs(item)
