"""Turns a function of JAX into an ONNX program, primitive by primitive.

ONNX through jax2onnx was tried first (0.13 and 0.17). It wants another orbax-checkpoint than ours, writes pooling
and padding that onnxruntime refuses or gets wrong when the batch size is open, and patches JAX while it runs.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnx
from jax import export
from jax.extend import core
from onnx import helper, numpy_helper

Value = np.ndarray | str
"""What is known when the program is written, or the name of what is computed when it runs."""

OPSET = 18
"""The version of ONNX's operators: that of December 2022."""
LARGEST = 2**31 - 2**20
"""Bytes of parameters that fit a file of ONNX, with some room for the program."""
_INLINED = ("jit", "pjit", "closed_call", "custom_jvp_call", "custom_vjp_call", "remat2", "checkpoint")


class Graph:
    """A program that grows.

    Args:
        batch: The one dimension that is open; others may be multiples of it.
        pixels: The name of an array whose first dimension that is.
    """

    def __init__(self, batch: Any, pixels: str) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}
        self._batch = batch
        self._size = self.add("Shape", pixels, start=0, end=1)

    def add(self, operator: str, *inputs: Value, **attributes: Any) -> str:
        """Adds an operator of ONNX with one output, and returns the name of the output."""
        names = [value if isinstance(value, str) else self._constant(value) for value in inputs]
        output = f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, names, [output], **attributes))
        return output

    def transpose(self, x: Value, axes: Sequence[int]) -> Value:
        """`x` with its axes in that order."""
        axes = [int(axis) for axis in axes]
        if axes == sorted(axes):
            return x
        return self.add("Transpose", x, perm=axes) if isinstance(x, str) else x.transpose(axes)

    def reshape(self, x: Value, shape: Sequence[Any]) -> Value:
        """`x` in another shape, of which at most one dimension is open."""
        sizes = np.array([size if isinstance(size, int) else -1 for size in shape], np.int64)
        return self.add("Reshape", x, sizes) if isinstance(x, str) else x.reshape(sizes)

    def sizes(self, shape: Sequence[Any]) -> Value:
        """A shape as an array."""
        if all(isinstance(size, int) for size in shape):
            return np.array(shape, np.int64)
        return self.add("Concat", *map(self._dimension, shape), axis=0)

    def _dimension(self, size: Any) -> Value:
        if isinstance(size, int):
            return np.array([size], np.int64)
        times = size // self._batch
        if not isinstance(times, int) or times * self._batch != size:
            raise ValueError(f"the dimension {size} is not a multiple of {self._batch}")
        return self._size if times == 1 else self.add("Mul", self._size, np.array([times], np.int64))

    def _constant(self, array: np.ndarray) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants[name] = array
        return name


Operator = Callable[..., Value]
"""Adds what a primitive computes to a graph: called with the graph, the equation and its operands."""


def to_onnx(
    function: Callable[[jax.Array], jax.Array], shape: tuple[int, ...], operators: Mapping[str, Operator]
) -> bytes:
    """Writes a function from `pixels` to `logits` as an ONNX program for any batch size.

    What does not depend on the pixels is computed now: normalization folded into kernels, for example.

    Args:
        function: Takes a float32 array `(b, *shape)`.
        shape: That of one example.
        operators: What each primitive is in ONNX.

    Returns:
        The content of an `.onnx` file.

    Raises:
        ValueError: If the function does what has no operator, or has more than 2 GB of parameters.
    """
    (batch,) = export.symbolic_shape("b")
    closed = jax.make_jaxpr(function)(jax.ShapeDtypeStruct((batch, *shape), jnp.float32))
    graph = Graph(batch, "pixels")
    (result,) = _evaluate(graph, operators, closed, ["pixels"])
    graph.nodes.append(helper.make_node("Identity", [result], ["logits"]))
    nodes = _needed(graph.nodes)
    used = {name for node in nodes for name in node.input}
    constants = {name: array for name, array in graph.constants.items() if name in used}
    size = sum(array.nbytes for array in constants.values())
    if size > LARGEST:
        raise ValueError(f"{size / 1e9:.1f} GB of parameters do not fit an ONNX file, which holds 2 GB")
    float32, (logits,) = onnx.TensorProto.FLOAT, closed.out_avals
    program = helper.make_graph(
        nodes,
        "transfer_jax",
        [helper.make_tensor_value_info("pixels", float32, ["b", *shape])],
        [helper.make_tensor_value_info("logits", float32, ["b", *logits.shape[1:]])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opset = helper.make_opsetid("", OPSET)
    model = helper.make_model_gen_version(program, opset_imports=[opset], producer_name="transfer_jax")
    return model.SerializeToString()


def _evaluate(
    graph: Graph, operators: Mapping[str, Operator], closed: Any, inputs: Sequence[Value]
) -> list[Value]:
    """The outputs of a traced function; what cannot be computed now is added to the graph."""
    values: dict[Any, Value] = dict(zip(closed.jaxpr.constvars, map(np.asarray, closed.consts), strict=True))
    values.update(zip(closed.jaxpr.invars, inputs, strict=True))

    def read(atom: Any) -> Value:
        return np.asarray(atom.val, atom.aval.dtype) if isinstance(atom, core.Literal) else values[atom]

    for equation in closed.jaxpr.eqns:
        outputs = _outputs(graph, operators, equation, [read(atom) for atom in equation.invars])
        values.update(zip(equation.outvars, outputs, strict=True))
    return [read(atom) for atom in closed.jaxpr.outvars]


def _outputs(
    graph: Graph, operators: Mapping[str, Operator], equation: Any, inputs: list[Value]
) -> Sequence[Value]:
    name, params = equation.primitive.name, equation.params
    if name == "platform_index":  # none of ours: what is written for one platform is written for its compiler
        return [np.array(params["platforms"].index(None))]
    if name == "cond" and isinstance(inputs[0], np.ndarray):
        return _evaluate(graph, operators, params["branches"][int(inputs[0])], inputs[1:])
    if name in _INLINED:
        return _evaluate(graph, operators, params.get("jaxpr") or params["call_jaxpr"], inputs)
    open_ended = any(not isinstance(size, int) for out in equation.outvars for size in out.aval.shape)
    if not open_ended and not any(isinstance(value, str) for value in inputs):
        found = equation.primitive.bind(*map(jnp.asarray, inputs), **params)
        return [np.asarray(array) for array in (found if equation.primitive.multiple_results else [found])]
    if name not in operators:
        raise ValueError(f"the primitive {name} has no operator in ONNX here; choose from {sorted(operators)}")
    return [operators[name](graph, equation, *inputs)]


def _needed(nodes: Sequence[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """The nodes that the last one depends on, in order."""
    wanted, kept = set(nodes[-1].output), []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            kept.append(node)
            wanted.update(node.input)
    return kept[::-1]
