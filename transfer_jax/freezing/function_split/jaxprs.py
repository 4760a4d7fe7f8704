"""Traced programs (jaxprs): the parts of JAX that this package uses without a promise of stability.

All access to constructors, parameters of primitives and source positions that differ between versions of
JAX is in this file, and `tests/freezing/function_split/test_jaxprs.py` tests each of its functions.
"""

import itertools
import math
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.core
import jax.extend.core as jex

Var = Any
"""A variable of a jaxpr, `jax.extend.core.Var`."""
Equation = Any
"""An equation of a jaxpr, `jax.extend.core.JaxprEqn`: a primitive with parameters, operands and results."""
Atom = Any
"""An operand of an equation: a variable, or a literal."""

CALLS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "remat2": "jaxpr",
    "checkpoint": "jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "custom_vjp_call_jaxpr": "fun_jaxpr",
}
"""Primitives that call one jaxpr once, with the name of the parameter that contains it."""
_HUGE = {
    "while",
    "custom_call",
    "ffi_call",
    "pallas_call",
    "sort",
    "fft",
    "eig",
    "eigh",
    "svd",
    "qr",
    "lu",
    "schur",
    "cholesky",
    "call_hi_primitive",
    "pure_callback",
}
"""Primitives whose operations are not counted, and are never repeated in each step."""
_LAYERS = re.compile(r"[/\\](site|dist)-packages[/\\](flax|equinox)[/\\]")
"""Files of the libraries whose layers models call."""
_FRAMES = 30
"""Largest number of calls around an operation that are searched for a line of the model."""


def trace(function: Callable[..., Any], *arguments: Any) -> tuple[Any, list[Any], Any]:
    """Traces a function.

    Args:
        function: The function.
        *arguments: Trees of arrays or of `jax.ShapeDtypeStruct`.

    Returns:
        The jaxpr, the values of its constants, and the tree of the shapes of its results.
    """
    closed, shapes = jax.make_jaxpr(function, return_shape=True)(*arguments)
    return *opened(closed), shapes


def opened(jaxpr: Any) -> tuple[Any, list[Any]]:
    """Returns a jaxpr and the values of its constants, from a closed jaxpr or, since JAX 0.12, a jaxpr."""
    return getattr(jaxpr, "jaxpr", jaxpr), list(getattr(jaxpr, "consts", ()))


def is_literal(atom: Atom) -> bool:
    """Returns True if an operand is a literal, which has a value instead of a name."""
    return isinstance(atom, jex.Literal)


def variable_like(atom: Atom) -> Var:
    """Returns a new variable with the shape and dtype of an operand."""
    return jex.Var(atom.aval)


def variable_of_shape(atom: Atom, shape: Sequence[int]) -> Var:
    """Returns a new variable with the dtype of an operand and another shape."""
    return jex.Var(atom.aval.update(shape=tuple(shape)))


def struct_of(atom: Atom) -> jax.ShapeDtypeStruct:
    """Returns the shape and dtype of an operand."""
    return jax.ShapeDtypeStruct(atom.aval.shape, atom.aval.dtype)


def shape_of(atom: Atom) -> tuple[int, ...]:
    """Returns the shape of an operand; that of an operand without one, such as a token, is `()`."""
    return tuple(getattr(atom.aval, "shape", ()))


def size_in_bytes(atom: Atom) -> int:
    """Returns the size of an operand in bytes."""
    return math.prod(shape_of(atom)) * atom.aval.dtype.itemsize


def inner_jaxpr(equation: Equation) -> tuple[Any, list[Any]] | None:
    """Returns the jaxpr and the constants that a call of `CALLS` contains, or None for another primitive."""
    name = CALLS.get(equation.primitive.name)
    return None if name is None else opened(equation.params[name])


def name_of(equation: Equation) -> str:
    """Returns the name of the primitive of an equation."""
    inner = equation.params.get("_prim")  # Since JAX 0.12, some primitives are objects within a common one.
    return equation.primitive.name if inner is None else type(inner).__name__


def expanded(equation: Equation) -> tuple[Any, list[Any]] | None:
    """Returns the jaxpr and the constants that a primitive which is an object stands for, or None."""
    expand = getattr(equation.params.get("_prim"), "expand", None)
    return None if expand is None else trace(expand, *map(struct_of, equation.invars))[:2]


def inner_jaxprs(equation: Equation) -> Iterator[Any]:
    """Yields all jaxprs among the parameters of an equation."""
    for value in equation.params.values():
        for each in value if isinstance(value, (tuple, list)) else (value,):
            if hasattr(each, "eqns"):
                yield opened(each)[0]


def branches_of(equation: Equation) -> Sequence[Any]:
    """Returns the branches of a `cond`; of the implementations for several platforms, the default one."""
    branches, platforms = equation.params["branches"], equation.params.get("branches_platforms")
    if platforms is None or None not in platforms:
        return branches
    return (branches[platforms.index(None)],)


def scan_counts(equation: Equation) -> tuple[int, int]:
    """Returns the number of constants and of carried values of a scan, the first operands of the equation."""
    parameters = equation.params
    if "num_consts" in parameters:  # Up to JAX 0.11.
        return parameters["num_consts"], parameters["num_carry"]
    constants, carried, _ = parameters["ft_in"].unpack()
    return len(list(constants)), len(list(carried))


def is_checkpoint(equation: Equation) -> bool:
    """Returns True for a checkpointed call (`jax.checkpoint`)."""
    return equation.primitive.name in ("remat2", "checkpoint")


def is_saved(call: Equation, equation: Equation) -> bool:
    """Returns True if the policy of a checkpointed call saves the results of an equation of its jaxpr."""
    policy = call.params.get("policy")
    if policy is None:
        return False
    found = policy(equation.primitive, *(atom.aval for atom in equation.invars), **equation.params)
    return bool(found) and type(found).__name__ != "RecomputeType"


def checkpointed_call(equation: Equation, jaxpr: Any) -> Equation:
    """Returns a checkpointed call (`jax.checkpoint`) of another jaxpr, whose operands are its inputs."""
    return equation.replace(
        invars=list(jaxpr.invars),
        outvars=[variable_like(result) for result in jaxpr.outvars],
        params={**equation.params, "jaxpr": jaxpr},
    )


def new_jaxpr(inputs: Sequence[Var], results: Sequence[Atom], equations: Sequence[Equation]) -> Any:
    """Returns a jaxpr without constants."""
    names = ("",) * len(inputs), ("",) * len(results)
    debug_info = jex.DebugInfo("split_frozen", "split_frozen", *names)
    return jex.Jaxpr((), list(inputs), list(results), list(equations), debug_info=debug_info)


def as_function(
    inputs: Sequence[Var], results: Sequence[Atom], equations: Sequence[Equation]
) -> Callable[..., list[Any]]:
    """Returns a function from the values of the inputs to the list of the values of the results."""
    jaxpr = new_jaxpr(inputs, results, equations)
    return lambda *values: jax.core.eval_jaxpr(jaxpr, (), *values)


def as_text(inputs: Sequence[Var], results: Sequence[Atom], equations: Sequence[Equation]) -> str:
    """Returns the text of a program, which is the same for the same program."""
    return str(new_jaxpr(inputs, results, equations))


def source_of(equation: Equation) -> str:
    """Returns the file and line that an equation was traced from, or an empty string if it is unknown.

    The operations of a layer of Flax or Equinox have the line that calls the layer.
    """
    try:
        from jax._src import source_info_util
    except ImportError:
        return ""
    frames = [*itertools.islice(source_info_util.user_frames(equation.source_info.traceback), _FRAMES)]
    frames = [frame for frame in frames if not _LAYERS.search(frame.file_name)] or frames
    return f"{frames[0].file_name}:{frames[0].start_line} ({frames[0].function_name})" if frames else ""


def flops(equation: Equation) -> float:
    """Returns the floating-point operations of matrix products and convolutions; infinity if uncounted."""
    name = equation.primitive.name
    if name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        sizes = [shape_of(equation.invars[0])[axis] for axis in contracted]
        return 2 * math.prod(shape_of(equation.outvars[0])) * math.prod(sizes)
    if name == "conv_general_dilated":
        kernel = shape_of(equation.invars[1])
        outputs = kernel[equation.params["dimension_numbers"].rhs_spec[0]]
        return 2 * math.prod(shape_of(equation.outvars[0])) * math.prod(kernel) // outputs
    if name in _HUGE:
        return math.inf
    inner = [sum(map(flops, jaxpr.eqns)) for jaxpr in inner_jaxprs(equation)]
    if name == "cond":  # The most expensive branch.
        return max(sum(map(flops, opened(each)[0].eqns)) for each in branches_of(equation))
    return sum(inner) * (equation.params["length"] if name == "scan" else 1)
