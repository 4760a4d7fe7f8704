"""An ONNX program that is being written."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper

Value = np.ndarray | str
"""What is known when the program is written, or the name of what is computed when it runs."""


class Graph:
    """Nodes in the order they run, each with one output, and arrays.

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

    def nodes_for(self, value: Value, name: str) -> list[onnx.NodeProto]:
        """The nodes that compute a value, in order, and one that gives it a name."""
        source = value if isinstance(value, str) else self._constant(value)
        kept, wanted = [helper.make_node("Identity", [source], [name])], {source}
        for node in reversed(self.nodes):
            if wanted.intersection(node.output):
                kept.append(node)
                wanted.update(node.input)
        return kept[::-1]

    def _constant(self, array: np.ndarray) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants[name] = array
        return name


Operator = Callable[..., Value]
"""Adds what a primitive computes to a graph: called with the graph, the equation and its operands."""
