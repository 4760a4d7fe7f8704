"""Rules of primitives that compute: element by element, reductions, products, convolutions."""

from transfer_jax.freezing.function_split.examples import (
    MixedError,
    PerExample,
    Place,
    Shared,
    common,
    equal_axes,
)
from transfer_jax.freezing.function_split.rules import Operation, rule

ELEMENTWISE = frozenset(
    [
        "abs",
        "acos",
        "acosh",
        "add",
        "add_any",
        "and",
        "asin",
        "asinh",
        "atan",
        "atan2",
        "atanh",
        "bessel_i0e",
        "bessel_i1e",
        "cbrt",
        "ceil",
        "clamp",
        "clz",
        "complex",
        "conj",
        "convert_element_type",
        "copy",
        "copy_p",
        "cos",
        "cosh",
        "digamma",
        "div",
        "eq",
        "eq_to",
        "erf",
        "erf_inv",
        "erfc",
        "exp",
        "exp2",
        "expm1",
        "floor",
        "ge",
        "gt",
        "igamma",
        "igamma_grad_a",
        "igammac",
        "imag",
        "integer_pow",
        "is_finite",
        "le",
        "le_to",
        "lgamma",
        "log",
        "log1p",
        "logistic",
        "lt",
        "lt_to",
        "max",
        "mesh_cast",
        "min",
        "mul",
        "mul_any",
        "name",
        "ne",
        "neg",
        "nextafter",
        "not",
        "or",
        "population_count",
        "polygamma",
        "polynomial",
        "pow",
        "pvary",
        "random_gamma_grad",
        "real",
        "reduce_precision",
        "regularized_incomplete_beta",
        "rem",
        "round",
        "rsqrt",
        "select_n",
        "sharding_constraint",
        "shift_left",
        "shift_right_arithmetic",
        "shift_right_logical",
        "sign",
        "sin",
        "sinh",
        "sqrt",
        "square",
        "stop_gradient",
        "sub",
        "tan",
        "tanh",
        "xor",
        "zeta",
    ]
)
"""Primitives that compute each entry of their results from the same entry of their operands."""
REDUCTIONS = frozenset(
    [
        "argmax",
        "argmin",
        "reduce_and",
        "reduce_max",
        "reduce_min",
        "reduce_or",
        "reduce_prod",
        "reduce_sum",
        "reduce_xor",
    ]
)
"""Primitives that reduce over the axes in their parameter `axes`."""


@rule(*ELEMENTWISE)
def _elementwise(op: Operation) -> list[Place]:
    return [common(op.places, op.shapes)] * len(op.results)


@rule("bitcast_convert_type")
def _bitcast(op: Operation) -> list[Place]:
    if op.shapes[0] != op.results[0]:
        raise MixedError("changes the shape by reinterpreting bytes")
    return [op.layout]


@rule("optimization_barrier")
def _barrier(op: Operation) -> list[Place]:
    return list(op.places)


@rule(*REDUCTIONS)
def _reduce(op: Operation) -> list[Place]:
    return [_without_axes(op.layout, op.parameters["axes"])]


@rule("reduce")
def _reduce_by_function(op: Operation) -> list[Place]:
    count = len(op.results)
    layout = common(op.places[:count], op.shapes[:count])
    return [_without_axes(layout, op.parameters["dimensions"])] * count


def _without_axes(layout: PerExample, axes: tuple[int, ...]) -> PerExample:
    if layout.axis in axes:
        raise MixedError("reduces over the examples")
    return layout.moved(layout.axis - sum(axis < layout.axis for axis in axes))


@rule("cumlogsumexp", "cummax", "cummin", "cumprod", "cumsum")
def _cumulate(op: Operation) -> list[Place]:
    if op.parameters["axis"] == op.layout.axis:
        raise MixedError("accumulates over the examples")
    return [op.layout]


@rule("sort")
def _sort(op: Operation) -> list[Place]:
    layout = common(op.places, op.shapes)
    if op.parameters["dimension"] == layout.axis:
        raise MixedError("sorts the examples")
    return [layout] * len(op.results)


@rule("top_k")
def _top_k(op: Operation) -> list[Place]:
    rank = len(op.shapes[0])
    if op.parameters.get("axis", rank - 1) % rank == op.layout.axis:
        raise MixedError("sorts the examples")
    return [op.layout] * len(op.results)


@rule("reduce_window", "reduce_window_max", "reduce_window_min", "reduce_window_sum")
def _window(op: Operation) -> list[Place]:
    count = len(op.results)
    layout, parameters = common(op.places[:count], op.shapes[:count]), op.parameters
    axis = layout.axis
    step = (parameters["window_dimensions"][axis], parameters["window_strides"][axis])
    if step != (1, 1) or tuple(parameters["padding"][axis]) != (0, 0):
        raise MixedError("has a window over the examples")
    return [layout] * count


@rule("conv_general_dilated")
def _convolve(op: Operation) -> list[Place]:
    numbers, layout = op.parameters["dimension_numbers"], op.layout
    if isinstance(op.places[1], PerExample) or numbers.lhs_spec[0] != layout.axis:
        raise MixedError("has a kernel that depends on examples, or the examples as channels or positions")
    if op.parameters["batch_group_count"] != 1:
        raise MixedError("divides the batch into groups")
    return [layout.moved(numbers.out_spec[0])]


@rule("dot_general")
def _multiply(op: Operation) -> list[Place]:
    (left_contracted, right_contracted), (left_batch, right_batch) = op.parameters["dimension_numbers"]
    left, right = op.places
    left_free = _free(len(op.shapes[0]), left_contracted, left_batch)
    right_free = _free(len(op.shapes[1]), right_contracted, right_batch)
    first = len(left_batch)

    def result_axis(place: PerExample, contracted, batch, free: list[int], shift: int) -> int:
        if place.axis in contracted:
            raise MixedError("sums products over the examples")
        return tuple(batch).index(place.axis) if place.axis in batch else shift + free.index(place.axis)

    if isinstance(left, PerExample) and isinstance(right, PerExample):
        axis = result_axis(left, left_contracted, left_batch, left_free, first)
        other = result_axis(right, right_contracted, right_batch, right_free, first + len(left_free))
        if axis != other or (left.outer, left.inner) != (right.outer, right.inner):
            raise MixedError("multiplies examples with one another")
        return [left.moved(axis)]
    if isinstance(left, PerExample):
        axis = result_axis(left, left_contracted, left_batch, left_free, first)
        return [_with_shared(left, axis, right, op.shapes[1], right_batch)]
    assert isinstance(right, PerExample)
    axis = result_axis(right, right_contracted, right_batch, right_free, first + len(left_free))
    return [_with_shared(right, axis, left, op.shapes[0], left_batch)]


def _free(rank: int, contracted, batch) -> list[int]:
    return [axis for axis in range(rank) if axis not in contracted and axis not in batch]


def _with_shared(
    layout: PerExample, axis: int, other: Place, shape: tuple[int, ...], batch: tuple[int, ...]
) -> PerExample:
    """Returns the layout of a product of examples and a shared operand."""
    assert isinstance(other, Shared)
    if axis < len(batch) and batch[axis] not in equal_axes(other, shape):
        raise MixedError("uses a constant that differs between the positions of a batch")
    return layout.moved(axis)


@rule("cholesky", "eigh", "fft", "lu", "qr", "svd", "triangular_solve")
def _linear_algebra(op: Operation) -> list[Place]:
    layout = common(op.places, op.shapes)
    last = len(op.parameters["fft_lengths"]) if op.name == "fft" else 2
    if layout.axis >= len(op.shapes[0]) - last:
        raise MixedError("acts along the examples")
    return [layout] * len(op.results)
