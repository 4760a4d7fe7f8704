"""The rule of `gather`, which looks up slices of an array at indices."""

from transfer_jax.freezing.function_split.examples import (
    MixedError,
    PerExample,
    Place,
    Shared,
    equal_axes,
    fits,
)
from transfer_jax.freezing.function_split.rules import Operation, rule


@rule("gather")
def _gather(op: Operation) -> list[Place]:
    operand, indices = op.places[0], op.places[1]
    numbers = op.parameters["dimension_numbers"]
    if isinstance(indices, PerExample) and indices.axis == len(op.shapes[1]) - 1:
        raise MixedError("has an index vector along the examples")
    axes_of_indices = [axis for axis in range(len(op.results[0])) if axis not in numbers.offset_dims]
    if not isinstance(operand, PerExample):
        assert isinstance(operand, Shared)
        assert isinstance(indices, PerExample)
        if indices.axis in numbers.start_indices_batching_dims:
            axis = numbers.operand_batching_dims[numbers.start_indices_batching_dims.index(indices.axis)]
            if not fits(operand, op.shapes[0], indices.moved(axis)):
                raise MixedError("uses a constant that differs between the positions of a batch")
        return [indices.moved(axes_of_indices[indices.axis])]
    if operand.axis in numbers.operand_batching_dims:
        position = numbers.operand_batching_dims.index(operand.axis)
        axis = numbers.start_indices_batching_dims[position]
        if not _same_examples(operand, indices, axis, op.shapes[1]):
            raise MixedError("gathers different entries of each example")
        return [operand.moved(axes_of_indices[axis])]
    if isinstance(indices, PerExample):
        raise MixedError("has an index of one example into all examples")
    return [_sliced(op, operand)]


def _same_examples(operand: PerExample, indices: Place, axis: int, shape: tuple[int, ...]) -> bool:
    """Returns True if the indices along a batching axis are those of the same example, or equal for all."""
    if isinstance(indices, PerExample):
        return indices == operand.moved(axis)
    return isinstance(indices, Shared) and axis in equal_axes(indices, shape)


def _sliced(op: Operation, operand: PerExample) -> PerExample:
    """Returns the layout of slices that contain all examples."""
    numbers, axis = op.parameters["dimension_numbers"], operand.axis
    removed = {*numbers.collapsed_slice_dims, *numbers.operand_batching_dims}
    whole = op.parameters["slice_sizes"][axis] == op.shapes[0][axis]
    if axis in numbers.start_index_map or axis in removed or not whole:
        raise MixedError("selects some examples")
    kept = [each for each in range(len(op.shapes[0])) if each not in removed]
    return operand.moved(numbers.offset_dims[kept.index(axis)])
