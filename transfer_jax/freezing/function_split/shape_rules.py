"""Rules of primitives that move, repeat or select entries."""

import dataclasses

from transfer_jax.freezing.function_split.examples import MixedError, PerExample, Place, common, reshaped
from transfer_jax.freezing.function_split.rules import Operation, rule


def _moved(layout: PerExample, axis: int) -> PerExample:
    return dataclasses.replace(layout, axis=axis)


@rule("transpose")
def _transpose(op: Operation) -> list[Place]:
    return [_moved(op.layout, op.parameters["permutation"].index(op.layout.axis))]


@rule("squeeze")
def _squeeze(op: Operation) -> list[Place]:
    axis = op.layout.axis
    return [_moved(op.layout, axis - sum(each < axis for each in op.parameters["dimensions"]))]


@rule("reshape", "expand_dims")
def _reshape(op: Operation) -> list[Place]:
    if op.parameters.get("dimensions") and op.name == "reshape":
        raise MixedError("reshapes and permutes at once")
    return [reshaped(op.layout, op.shapes[0], op.results[0], op.examples)]


@rule("broadcast_in_dim")
def _broadcast(op: Operation) -> list[Place]:
    return [_moved(op.layout, op.parameters["broadcast_dimensions"][op.layout.axis])]


@rule("rev")
def _reverse(op: Operation) -> list[Place]:
    if op.layout.axis in op.parameters["dimensions"]:
        raise MixedError("reverses the order of the examples")
    return [op.layout]


@rule("concatenate")
def _concatenate(op: Operation) -> list[Place]:
    layout = common(op.places, op.shapes)
    if op.parameters["dimension"] == layout.axis:
        raise MixedError("concatenates along the axis of the examples")
    return [layout]


@rule("stack")
def _stack(op: Operation) -> list[Place]:
    layout = common(op.places, op.shapes)
    return [_moved(layout, layout.axis + (op.parameters["axis"] <= layout.axis))]


@rule("unstack")
def _unstack(op: Operation) -> list[Place]:
    layout, axis = op.layout, op.parameters["axis"]
    if axis == layout.axis:
        raise MixedError("takes the batch apart")
    return [_moved(layout, layout.axis - (axis < layout.axis))] * len(op.results)


@rule("tile")
def _tile(op: Operation) -> list[Place]:
    if op.parameters["reps"][op.layout.axis] != 1:
        raise MixedError("repeats the batch")
    return [op.layout]


@rule("split")
def _split(op: Operation) -> list[Place]:
    if op.parameters["axis"] == op.layout.axis:
        raise MixedError("divides the batch")
    return [op.layout] * len(op.results)


@rule("pad")
def _pad(op: Operation) -> list[Place]:
    if isinstance(op.places[1], PerExample) or tuple(op.parameters["padding_config"][op.layout.axis]) != (
        0,
        0,
        0,
    ):
        raise MixedError("pads the batch")
    return [op.layout]


@rule("slice")
def _slice(op: Operation) -> list[Place]:
    _whole_axis(op, op.layout, "selects some examples")
    return [op.layout]


@rule("dynamic_slice")
def _dynamic_slice(op: Operation) -> list[Place]:
    if any(isinstance(place, PerExample) for place in op.places[1:]):
        raise MixedError("has an index that depends on examples")
    _whole_axis(op, op.layout, "selects some examples")
    return [op.layout]


def _whole_axis(op: Operation, layout: PerExample, reason: str) -> None:
    strides = op.parameters.get("strides")
    stride = 1 if strides is None else strides[layout.axis]
    if op.results[0][layout.axis] != op.shapes[0][layout.axis] or stride != 1:
        raise MixedError(reason)


@rule("dynamic_update_slice")
def _dynamic_update_slice(op: Operation) -> list[Place]:
    if any(isinstance(place, PerExample) for place in op.places[2:]):
        raise MixedError("has an index that depends on examples")
    layout = common(op.places[:2], op.shapes[:2])
    if op.shapes[0][layout.axis] != op.shapes[1][layout.axis]:
        raise MixedError("writes to some examples")
    return [layout]


@rule("gather")
def _gather(op: Operation) -> list[Place]:
    return [_gathered(op)]


def _gathered(op: Operation) -> PerExample:
    from transfer_jax.freezing.function_split.examples import equal_axes

    numbers, sizes = op.parameters["dimension_numbers"], op.parameters["slice_sizes"]
    operand, indices = op.places[0], op.places[1]
    batch_axes = [axis for axis in range(len(op.results[0])) if axis not in numbers.offset_dims]
    operand_batching = tuple(getattr(numbers, "operand_batching_dims", ()))
    index_batching = tuple(getattr(numbers, "start_indices_batching_dims", ()))
    if isinstance(indices, PerExample) and indices.axis == len(op.shapes[1]) - 1:
        raise MixedError("has an index vector along the examples")
    if isinstance(operand, PerExample):
        if operand.axis in operand_batching:
            index_axis = index_batching[operand_batching.index(operand.axis)]
            same = isinstance(indices, PerExample) and indices.axis == index_axis
            if same and (indices.outer, indices.inner) == (operand.outer, operand.inner):
                return _moved(operand, batch_axes[index_axis])
            if not isinstance(indices, PerExample) and index_axis in equal_axes(indices, op.shapes[1]):
                return _moved(operand, batch_axes[index_axis])
            raise MixedError("gathers different entries of each example")
        if isinstance(indices, PerExample):
            raise MixedError("has an index of one example into all examples")
        axis = operand.axis
        if axis in numbers.start_index_map or axis in numbers.collapsed_slice_dims:
            raise MixedError("selects some examples")
        if sizes[axis] != op.shapes[0][axis]:
            raise MixedError("selects some examples")
        kept = [
            each
            for each in range(len(op.shapes[0]))
            if each not in numbers.collapsed_slice_dims and each not in operand_batching
        ]
        return _moved(operand, numbers.offset_dims[kept.index(axis)])
    assert isinstance(indices, PerExample)
    if indices.axis in index_batching:
        raise MixedError("uses a constant that differs between the positions of a batch")
    return _moved(indices, batch_axes[indices.axis])
