"""Indices `x[jnp.arange(len(x)), …]`, which take one entry of each example, as indices along a batch axis.

`gather` and `scatter` have a form for it: a batch axis that the operand and the indices have in common. It
computes the same, and shows that no example is read by another one.
"""

from typing import TYPE_CHECKING

import jax
import numpy as np

from transfer_jax.freezing.function_split.jaxprs import Atom, Equation, is_literal, shape_of

if TYPE_CHECKING:
    from transfer_jax.freezing.function_split.program import Program

_FIELDS = {
    "gather": (
        "start_index_map",
        "collapsed_slice_dims",
        "operand_batching_dims",
        "start_indices_batching_dims",
    ),
    "scatter": (
        "scatter_dims_to_operand_dims",
        "inserted_window_dims",
        "operand_batching_dims",
        "scatter_indices_batching_dims",
    ),
}
_FOLDED = frozenset(
    ["iota", "lt", "add", "sub", "mul", "select_n", "broadcast_in_dim", "reshape", "convert_element_type"]
)
"""Primitives that are evaluated to find the values of indices."""
_LARGEST = 1 << 16
"""Largest number of entries of an evaluated array."""


def along_batch_axis(program: "Program", equation: Equation, operands: list[Atom]) -> Equation | None:
    """Returns a gather or scatter with a batch axis in place of counted indices, or None if there are none.

    Args:
        program: The program that computes the operands; the columns of the indices are joined in it.
        equation: The operation.
        operands: Its operands.
    """
    fields = _FIELDS.get(equation.primitive.name.split("-")[0])
    if fields is None or is_literal(operands[1]):
        return None
    maker = program.makers.get(operands[1])
    if maker is None or maker.primitive.name != "concatenate":
        return None
    rank, shape = len(shape_of(operands[1])), shape_of(operands[0])
    columns = [*maker.invars]
    if maker.params["dimension"] != rank - 1 or any(shape_of(each)[-1] != 1 for each in columns):
        return None
    numbers = equation.params["dimension_numbers"]
    mapped, removed, of_operand, of_indices = (getattr(numbers, name) for name in fields)
    for column, operand_axis in zip(columns, mapped, strict=True):
        axis = _counted_axis(program, column, shape[operand_axis])
        if axis is None or operand_axis not in removed or axis in of_indices or len(columns) < 2:
            continue
        others = [each for each in columns if each is not column]
        joined = program.traced_inline(lambda *parts: jax.lax.concatenate(parts, rank - 1), *others)
        pairs = sorted([*zip(of_operand, of_indices, strict=True), (operand_axis, axis)])
        changed = (
            tuple(each for each in mapped if each != operand_axis),
            tuple(each for each in removed if each != operand_axis),
            tuple(each for each, _ in pairs),
            tuple(each for _, each in pairs),
        )
        new = numbers._replace(**dict(zip(fields, changed, strict=True)))
        parameters = {"dimension_numbers": new, "indices_are_sorted": False, "unique_indices": False}
        return equation.replace(
            invars=[operands[0], joined, *operands[2:]], params={**equation.params, **parameters}
        )
    return None


def _counted_axis(program: "Program", column: Atom, size: int) -> int | None:
    """Returns the axis along which a column of indices counts all entries of an axis of a size."""
    shape = shape_of(column)
    if size < 2 or size not in shape[:-1] or (value := _constant(program, column)) is None:
        return None
    for axis in range(len(shape) - 1):
        steps = np.arange(size).reshape([size if each == axis else 1 for each in range(len(shape))])
        if shape[axis] == size and np.array_equal(value, np.broadcast_to(steps, shape)):
            return axis
    return None


def _constant(program: "Program", atom: Atom) -> np.ndarray | None:
    """Returns the value of a variable that no input affects; None if it is unknown."""
    if is_literal(atom):
        return atom.val
    if np.prod(shape_of(atom), initial=1) > _LARGEST:
        return None
    if atom in program.constants:
        return np.asarray(program.constants[atom])
    maker = program.makers.get(atom)
    if maker is None or maker.primitive.name not in _FOLDED:
        return None
    operands = [_constant(program, each) for each in maker.invars]
    if any(each is None for each in operands):
        return None
    with jax.ensure_compile_time_eval():
        return np.asarray(maker.primitive.bind(*map(jax.numpy.asarray, operands), **maker.params))
