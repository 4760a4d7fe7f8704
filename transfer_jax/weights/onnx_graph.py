"""A graph of ONNX operators under construction."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper

Value = np.ndarray | str
"""An array that is known at export, or the name of a value that the program computes."""


class Graph:
    """A list of nodes in the order of execution, each with one output, and the constant arrays.

    Args:
        batch: The symbolic batch dimension. Other symbolic dimensions must be multiples of it.
        pixels: The name of the input array, whose first dimension is the batch.
    """

    def __init__(self, batch: Any, pixels: str) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}
        self._batch = batch
        self._size = self.add("Shape", pixels, start=0, end=1)

    def add(self, operator: str, *inputs: Value, **attributes: Any) -> str:
        """Adds an ONNX operator with one output, and returns the name of the output."""
        names = [value if isinstance(value, str) else self._constant(value) for value in inputs]
        output = f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, names, [output], **attributes))
        return output

    def transpose(self, x: Value, axes: Sequence[int]) -> Value:
        """Returns `x` with its axes in the order of `axes`."""
        axes = [int(axis) for axis in axes]
        if axes == sorted(axes):
            return x
        return self.add("Transpose", x, perm=axes) if isinstance(x, str) else x.transpose(axes)

    def reshape(self, x: Value, shape: Sequence[Any]) -> Value:
        """Returns `x` in another shape, of which at most one dimension is symbolic."""
        sizes = np.array([size if isinstance(size, int) else -1 for size in shape], np.int64)
        return self.add("Reshape", x, sizes) if isinstance(x, str) else x.reshape(sizes)

    def sizes(self, shape: Sequence[Any]) -> Value:
        """Returns a shape as a one-dimensional array."""
        if all(isinstance(size, int) for size in shape):
            return np.array(shape, np.int64)
        return self.add("Concat", *map(self._dimension, shape), axis=0)

    def _dimension(self, size: Any) -> Value:
        if isinstance(size, int):
            return np.array([size], np.int64)
        times = size // self._batch
        if not isinstance(times, int) or times * self._batch != size:
            raise ValueError(f"the symbolic dimension {size} is not a multiple of the batch {self._batch}")
        return self._size if times == 1 else self.add("Mul", self._size, np.array([times], np.int64))

    def nodes_for(self, values: Mapping[str, Value]) -> list[onnx.NodeProto]:
        """Returns the nodes that compute values, in order, and last nodes that give them their names."""
        sources = {
            name: value if isinstance(value, str) else self._constant(value) for name, value in values.items()
        }
        nodes = [helper.make_node("Identity", [source], [name]) for name, source in sources.items()][::-1]
        needed = {*sources.values()}
        for node in reversed(self.nodes):
            if needed.intersection(node.output):
                nodes.append(node)
                needed.update(node.input)
        return nodes[::-1]

    def _constant(self, array: np.ndarray) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants[name] = array
        return name


Operator = Callable[..., Value]
"""A function of a graph, an equation and its operands, which adds the equation's primitive to the graph."""
