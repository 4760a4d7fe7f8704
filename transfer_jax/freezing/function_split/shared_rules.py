"""The axes along which a variable that depends on no example is constant.

A shared variable may be combined with examples only if it is equal for all of them. These functions follow
that through broadcasts, reshapes and element-wise operations; for other primitives nothing is known.
"""

import math

from transfer_jax.freezing.function_split.compute_rules import ELEMENTWISE, REDUCTIONS
from transfer_jax.freezing.function_split.examples import (
    MixedError,
    PerExample,
    Shared,
    equal_axes,
    fits,
    reshaped,
)
from transfer_jax.freezing.function_split.rules import Operation


def shared_results(op: Operation) -> list[Shared]:
    """Returns the places of the results of an operation on shared operands."""
    operands = [place for place in op.places if isinstance(place, Shared)]
    equal = [equal_axes(place, shape) for place, shape in zip(operands, op.shapes, strict=True)]
    if op.name in ("split", "unstack"):
        axis, removed = op.parameters["axis"], op.name == "unstack"
        kept = frozenset(each - (removed and each > axis) for each in equal[0] if each != axis)
        return [Shared(kept)] * len(op.results)
    axes = frozenset(_equal_axes_of_result(op, equal))
    layouts = frozenset(each for each in _layouts_of_result(op, operands, equal) if each.axis not in axes)
    return [Shared(axes, layouts), *[Shared()] * (len(op.results) - 1)]


def _equal_axes_of_result(op: Operation, equal: list[set[int]]) -> set[int]:
    parameters, rank = op.parameters, len(op.results[0]) if op.results else 0
    if op.name in ELEMENTWISE:
        arrays = [axes for axes, shape in zip(equal, op.shapes, strict=True) if shape]
        return set.intersection(*arrays) if arrays else set(range(rank))
    if op.name == "iota":
        return set(range(rank)) - {parameters["dimension"]}
    if not equal:
        return set()
    first = equal[0]
    if op.name == "broadcast_in_dim":
        dimensions = parameters["broadcast_dimensions"]
        return set(range(rank)) - {each for axis, each in enumerate(dimensions) if axis not in first}
    if op.name == "transpose":
        return {parameters["permutation"].index(axis) for axis in first}
    if op.name in ("slice", "tile"):
        return first
    if op.name == "stack":
        return {axis + (parameters["axis"] <= axis) for axis in set.intersection(*equal)}
    if op.name == "concatenate":
        return set.intersection(*equal) - {parameters["dimension"]}
    if op.name in REDUCTIONS:
        return _without(first, parameters["axes"])
    if op.name == "squeeze":
        return _without(first, parameters["dimensions"])
    if op.name in ("reshape", "expand_dims"):
        return _reshaped_axes(first, op.shapes[0], op.results[0])
    if op.name == "dot_general":
        return _equal_axes_of_product(op, *equal)
    if op.name == "gather":
        return _equal_axes_of_slices(op, *equal)
    return set()


def _equal_axes_of_product(op: Operation, left: set[int], right: set[int]) -> set[int]:
    """Returns the constant axes of a product: batch axes, then the free axes of both operands."""
    (left_contracted, right_contracted), (left_batch, right_batch) = op.parameters["dimension_numbers"]
    axes = [one in left and other in right for one, other in zip(left_batch, right_batch, strict=True)]
    for shape, equal, used in (
        (op.shapes[0], left, {*left_contracted, *left_batch}),
        (op.shapes[1], right, {*right_contracted, *right_batch}),
    ):
        axes += [axis in equal for axis in range(len(shape)) if axis not in used]
    return {axis for axis, is_equal in enumerate(axes) if is_equal}


def _equal_axes_of_slices(op: Operation, operand: set[int], indices: set[int]) -> set[int]:
    """Returns the constant axes of slices: along equal indices, and along equal entries of the operand."""
    numbers, rank = op.parameters["dimension_numbers"], len(op.results[0])
    removed = {*numbers.collapsed_slice_dims, *numbers.operand_batching_dims}
    kept = [axis for axis in range(len(op.shapes[0])) if axis not in removed]
    found = {after for after, axis in zip(numbers.offset_dims, kept, strict=True) if axis in operand}
    batching = dict(zip(numbers.start_indices_batching_dims, numbers.operand_batching_dims, strict=True))
    of_indices = [axis for axis in range(rank) if axis not in numbers.offset_dims]
    for axis, after in enumerate(of_indices):  # The index vector is the last axis of the indices.
        if axis in indices and (axis not in batching or batching[axis] in operand):
            found.add(after)
    return found


def _without(axes: set[int], removed: tuple[int, ...]) -> set[int]:
    return {axis - sum(each < axis for each in removed) for axis in axes if axis not in removed}


def _reshaped_axes(axes: set[int], old: tuple[int, ...], new: tuple[int, ...]) -> set[int]:
    if axes == set(range(len(old))):
        return set(range(len(new)))
    return {
        after
        for before in axes
        for after in range(len(new))
        if new[after] == old[before] and math.prod(new[:after]) == math.prod(old[:before])
    }


def _layouts_of_result(op: Operation, operands: list[Shared], equal: list[set[int]]) -> set[PerExample]:
    """Returns layouts of examples for which the result is constant, beyond its constant axes."""
    parameters = op.parameters
    if op.name in ELEMENTWISE:
        candidates = {layout for place in operands for layout in place.layouts}
        pairs = [*zip(operands, op.shapes, strict=True)]
        return {each for each in candidates if all(fits(place, shape, each) for place, shape in pairs)}
    if not operands:
        return set()
    layouts, found = operands[0].layouts, set()
    if op.name in ("reshape", "expand_dims"):
        for layout in {*layouts, *_possible_layouts(equal[0], op.shapes[0], op.examples)}:
            try:
                found.add(reshaped(layout, op.shapes[0], op.results[0], op.examples))
            except MixedError:
                continue
    elif op.name == "transpose":
        found = {layout.moved(parameters["permutation"].index(layout.axis)) for layout in layouts}
    elif op.name == "broadcast_in_dim":
        dimensions = parameters["broadcast_dimensions"]
        for layout in layouts:
            if op.results[0][dimensions[layout.axis]] == op.shapes[0][layout.axis]:
                found.add(layout.moved(dimensions[layout.axis]))
    elif op.name == "tile":  # All of an axis is repeated, so the result is constant over the outer factor.
        for axis, times in enumerate(parameters["reps"]):
            if times % op.examples == 0:
                size = op.shapes[0][axis]
                found |= {
                    PerExample(axis, times // op.examples, size),
                    PerExample(axis, 1, size * (times // op.examples)),
                }
    return found


def _possible_layouts(axes: set[int], shape: tuple[int, ...], examples: int) -> set[PerExample]:
    """Returns all layouts of the examples along constant axes."""
    found = set()
    for axis in axes:
        rest, remainder = divmod(shape[axis], examples)
        if not remainder:
            found |= {PerExample(axis, rest // each, each) for each in range(1, rest + 1) if rest % each == 0}
    return found
