"""The rule of `scatter`, which writes or adds slices to an array at indices."""

from transfer_jax.freezing.function_split.examples import MixedError, PerExample, Place, Shared, fits
from transfer_jax.freezing.function_split.rules import Operation, rule


@rule("scatter", "scatter-add", "scatter-mul", "scatter-min", "scatter-max", "scatter-sub")
def _scatter(op: Operation) -> list[Place]:
    for axis in range(len(op.shapes[0])):
        axes = _axes(op, axis)
        layouts = {
            place.moved(axis)
            for place, each in zip(op.places, axes or (), strict=False)
            if isinstance(place, PerExample) and place.axis == each
        }
        if axes and len(layouts) == 1:
            (layout,) = layouts
            if all(map(_fits, op.places, op.shapes, axes, [layout] * 3)):
                return [layout]
    raise MixedError("writes to some examples, or to different places of each")


def _axes(op: Operation, axis: int) -> tuple[int, int | None, int] | None:
    """Returns the axes of the operand, the indices and the updates along which entries stay apart.

    Args:
        op: The operation.
        axis: The axis of the operand.

    Returns:
        The axes; None for that of the indices if they are the same for all entries along the axis. None if
        entries along this axis do not stay apart.
    """
    numbers = op.parameters["dimension_numbers"]
    window, batching = numbers.update_window_dims, numbers.operand_batching_dims
    if axis in batching:
        of_indices = numbers.scatter_indices_batching_dims[batching.index(axis)]
        outside = [each for each in range(len(op.shapes[2])) if each not in window]
        return axis, of_indices, outside[of_indices]
    kept = [
        each for each in range(len(op.shapes[0])) if each not in (*numbers.inserted_window_dims, *batching)
    ]
    if axis not in kept or axis in numbers.scatter_dims_to_operand_dims:
        return None
    of_updates = window[kept.index(axis)]
    return (axis, None, of_updates) if op.shapes[2][of_updates] == op.shapes[0][axis] else None


def _fits(place: Place, shape: tuple[int, ...], axis: int | None, layout: PerExample) -> bool:
    if axis is None:
        return isinstance(place, Shared)
    if isinstance(place, Shared):
        return fits(place, shape, layout.moved(axis))
    return place == layout.moved(axis)
