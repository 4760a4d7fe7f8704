"""The translation of JAX primitives into ONNX operators, for all primitives that the networks use."""

import math
import string
from typing import Any

import numpy as np
from onnx import helper

from transfer_jax.weights.onnx_graph import Graph, Operator, Value


def _direct(operator: str) -> Operator:
    """Returns the translation of a primitive into the ONNX operator that does the same."""
    return lambda graph, equation, *inputs: graph.add(operator, *inputs)


def _reduction(operator: str) -> Operator:
    def reduce(graph: Graph, equation: Any, x: Value) -> Value:
        # One axis at a time: onnxruntime sums sequentially, so shorter sums have smaller rounding errors.
        for axis in sorted(equation.params["axes"], reverse=True):
            x = graph.add(operator, x, np.array([axis], np.int64), keepdims=0)
        return x

    return reduce


def _identity(graph: Graph, equation: Any, x: Value) -> Value:
    return x


def _reshape(graph: Graph, equation: Any, x: Value) -> Value:
    return graph.reshape(x, equation.outvars[0].aval.shape)


def _broadcast(graph: Graph, equation: Any, x: Value) -> Value:
    shape = equation.params["shape"]
    aligned = [1] * len(shape)
    for axis, size in zip(
        equation.params["broadcast_dimensions"], equation.invars[0].aval.shape, strict=True
    ):
        aligned[axis] = size
    x = graph.reshape(x, aligned)
    return x if aligned == [*shape] else graph.add("Expand", x, graph.sizes(shape))


def _transpose(graph: Graph, equation: Any, x: Value) -> Value:
    return graph.transpose(x, equation.params["permutation"])


def _concatenate(graph: Graph, equation: Any, *inputs: Value) -> Value:
    return graph.add("Concat", *inputs, axis=equation.params["dimension"])


def _tile(graph: Graph, equation: Any, x: Value) -> Value:
    return graph.add("Tile", x, graph.sizes(equation.params["reps"]))


def _reverse(graph: Graph, equation: Any, x: Value) -> Value:
    for axis in equation.params["dimensions"]:
        backwards = np.arange(equation.outvars[0].aval.shape[axis])[::-1]
        x = graph.add("Gather", x, backwards.astype(np.int64), axis=axis)
    return x


def _slice(graph: Graph, equation: Any, x: Value) -> Value:
    params, shape = equation.params, equation.invars[0].aval.shape
    ranges = zip(
        params["start_indices"], params["limit_indices"], params["strides"] or [1] * len(shape), strict=True
    )
    return _slice_axes(graph, x, {i: r for i, r in enumerate(ranges) if r != (0, shape[i], 1)})


def _slice_axes(graph: Graph, x: Value, ranges: dict[int, tuple[int, int, int]]) -> Value:
    """Slices `x` by the start, stop and step of each axis in `ranges`."""
    if not ranges:
        return x
    starts, stops, steps = np.array([*ranges.values()], np.int64).T
    return graph.add("Slice", x, starts, stops, np.array([*ranges], np.int64), steps)


def _gather(graph: Graph, equation: Any, x: Value, indices: Value) -> Value:
    numbers, sizes = equation.params["dimension_numbers"], equation.params["slice_sizes"]
    shape, axes = equation.invars[0].aval.shape, numbers.start_index_map
    if isinstance(indices, np.ndarray) and indices.ndim == 1:
        starts = [
            min(max(int(index), 0), shape[axis] - sizes[axis])
            for axis, index in zip(axes, indices, strict=True)
        ]
        cut = _slice_axes(
            graph, x, {axis: (i, i + sizes[axis], 1) for axis, i in zip(axes, starts, strict=True)}
        )
        return _reshape(graph, equation, cut)
    others = tuple(axis for axis in range(len(shape)) if axis not in axes)
    whole = others == numbers.offset_dims and all(sizes[axis] == shape[axis] for axis in others)
    if isinstance(indices, np.ndarray) and indices.ndim == 2 and len(axes) == 1 and whole:
        return graph.add("Gather", x, indices[:, 0].clip(0, shape[axes[0]] - 1), axis=axes[0])
    raise ValueError(f"ONNX export supports gather only for constant indices along one axis, not {equation}")


def _pad(graph: Graph, equation: Any, x: Value, value: Value) -> Value:
    before, after, between = zip(*equation.params["padding_config"], strict=True)
    if any(between):
        raise ValueError(f"ONNX export does not support padding between elements: {equation}")
    pads = np.array([*before, *after], np.int64)
    return graph.add("Pad", x, pads, value) if pads.any() else x


def _convolution(graph: Graph, equation: Any, x: Value, kernel: Value) -> Value:
    params = equation.params
    if params["batch_group_count"] != 1 or any(step != 1 for step in params["lhs_dilation"]):
        raise ValueError(
            f"ONNX export supports convolutions without batch groups and input dilation, not {equation}"
        )
    layout, padding = params["dimension_numbers"], params["padding"]
    y = graph.add(
        "Conv",
        graph.transpose(x, layout.lhs_spec),
        graph.transpose(kernel, layout.rhs_spec),
        group=params["feature_group_count"],
        strides=params["window_strides"],
        dilations=params["rhs_dilation"],
        pads=[*(low for low, _ in padding), *(high for _, high in padding)],
    )
    return graph.transpose(y, np.argsort(layout.out_spec).tolist())


def _dot_general(graph: Graph, equation: Any, x: Value, y: Value) -> Value:
    sums, batches = equation.params["dimension_numbers"]
    ranks = [len(variable.aval.shape) for variable in equation.invars]
    free = [
        [axis for axis in range(rank) if axis not in (*summed, *batch)]
        for rank, summed, batch in zip(ranks, sums, batches, strict=True)
    ]
    if len(sums[0]) == len(free[1]) == 1 and (not batches[0] or len(free[0]) == 1):
        left = graph.transpose(x, (*batches[0], *free[0], *sums[0]))
        return graph.add("MatMul", left, graph.transpose(y, (*batches[1], *sums[1], *free[1])))
    left, right = string.ascii_lowercase[: ranks[0]], [*string.ascii_uppercase[: ranks[1]]]
    for i, j in zip((*sums[0], *batches[0]), (*sums[1], *batches[1]), strict=True):
        right[j] = left[i]
    out = [*(left[i] for i in (*batches[0], *free[0])), *(right[j] for j in free[1])]
    return graph.add("Einsum", x, y, equation=f"{left},{''.join(right)}->{''.join(out)}")


def _pool(graph: Graph, equation: Any, operator: str, x: Value, **attributes: Any) -> Value:
    params = equation.params
    window, padding = params["window_dimensions"], params["padding"]
    dilated = any(step != 1 for step in (*params["base_dilation"], *params["window_dilation"]))
    if dilated or len(window) != 4 or window[0] != 1 or window[3] != 1:
        raise ValueError(
            f"ONNX export supports undilated windows over height and width of 4D arrays, not {equation}"
        )
    y = graph.add(
        operator,
        graph.transpose(x, (0, 3, 1, 2)),
        kernel_shape=window[1:3],
        strides=params["window_strides"][1:3],
        pads=[*(low for low, _ in padding[1:3]), *(high for _, high in padding[1:3])],
        **attributes,
    )
    return graph.transpose(y, (0, 2, 3, 1))


def _window_max(graph: Graph, equation: Any, x: Value) -> Value:
    return _pool(graph, equation, "MaxPool", x)


def _window_sum(graph: Graph, equation: Any, x: Value) -> Value:
    mean = _pool(graph, equation, "AveragePool", x, count_include_pad=1)
    return graph.add("Mul", mean, _scalar_like(equation, math.prod(equation.params["window_dimensions"])))


def _cast(graph: Graph, equation: Any, x: Value) -> Value:
    before, after = equation.invars[0].aval.dtype, equation.params["new_dtype"]
    return x if before == after else graph.add("Cast", x, to=helper.np_dtype_to_tensor_dtype(np.dtype(after)))


def _select(graph: Graph, equation: Any, which: Value, *cases: Value) -> Value:
    if len(cases) != 2:
        raise ValueError(f"ONNX export supports selection between two arrays, not {equation}")
    return graph.add("Where", which, cases[1], cases[0])


def _clamp(graph: Graph, equation: Any, low: Value, x: Value, high: Value) -> Value:
    return graph.add("Min", graph.add("Max", x, low), high)


def _rsqrt(graph: Graph, equation: Any, x: Value) -> Value:
    return graph.add("Reciprocal", graph.add("Sqrt", x))


def _erfc(graph: Graph, equation: Any, x: Value) -> Value:
    return graph.add("Sub", _scalar_like(equation, 1), graph.add("Erf", x))


def _square(graph: Graph, equation: Any, x: Value) -> Value:
    return graph.add("Mul", x, x)


def _integer_pow(graph: Graph, equation: Any, x: Value) -> Value:
    return graph.add("Pow", x, _scalar_like(equation, equation.params["y"]))


def _scalar_like(equation: Any, number: float) -> np.ndarray:
    """Returns a scalar in the dtype of the equation's output."""
    return np.array(number, equation.outvars[0].aval.dtype)


_DIRECT = {
    **{name: name.capitalize() for name in ("add", "sub", "mul", "div", "max", "min", "pow")},
    **{name: name.capitalize() for name in ("exp", "log", "tanh", "erf", "sqrt", "neg", "abs")},
    **{"logistic": "Sigmoid", "gt": "Greater", "ge": "GreaterOrEqual", "lt": "Less", "le": "LessOrEqual"},
}
OPERATORS: dict[str, Operator] = {
    **{name: _direct(operator) for name, operator in _DIRECT.items()},
    **{f"reduce_{name}": _reduction(f"Reduce{name.capitalize()}") for name in ("sum", "max", "min")},
    **dict.fromkeys(("copy", "stop_gradient"), _identity),
    **dict.fromkeys(("reshape", "squeeze", "expand_dims"), _reshape),
    "broadcast_in_dim": _broadcast,
    "transpose": _transpose,
    "concatenate": _concatenate,
    "tile": _tile,
    "rev": _reverse,
    "slice": _slice,
    "gather": _gather,
    "pad": _pad,
    "conv_general_dilated": _convolution,
    "dot_general": _dot_general,
    "reduce_window_max": _window_max,
    "reduce_window_sum": _window_sum,
    "convert_element_type": _cast,
    "select_n": _select,
    "clamp": _clamp,
    "rsqrt": _rsqrt,
    "erfc": _erfc,
    "square": _square,
    "integer_pow": _integer_pow,
}
"""The translation of each supported JAX primitive, by its name."""
