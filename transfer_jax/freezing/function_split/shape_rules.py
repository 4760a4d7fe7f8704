"""Rules of primitives that move, repeat or select entries."""

from transfer_jax.freezing.function_split.examples import MixedError, PerExample, Place, common, reshaped
from transfer_jax.freezing.function_split.rules import Operation, rule


@rule("transpose")
def _transpose(op: Operation) -> list[Place]:
    return [op.layout.moved(op.parameters["permutation"].index(op.layout.axis))]


@rule("squeeze")
def _squeeze(op: Operation) -> list[Place]:
    axis = op.layout.axis
    return [op.layout.moved(axis - sum(each < axis for each in op.parameters["dimensions"]))]


@rule("reshape", "expand_dims")
def _reshape(op: Operation) -> list[Place]:
    if op.parameters.get("dimensions") and op.name == "reshape":
        raise MixedError("reshapes and permutes at once")
    return [reshaped(op.layout, op.shapes[0], op.results[0], op.examples)]


@rule("broadcast_in_dim")
def _broadcast(op: Operation) -> list[Place]:
    return [op.layout.moved(op.parameters["broadcast_dimensions"][op.layout.axis])]


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
    return [layout.moved(layout.axis + (op.parameters["axis"] <= layout.axis))]


@rule("unstack")
def _unstack(op: Operation) -> list[Place]:
    layout, axis = op.layout, op.parameters["axis"]
    if axis == layout.axis:
        raise MixedError("takes the batch apart")
    return [layout.moved(layout.axis - (axis < layout.axis))] * len(op.results)


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
