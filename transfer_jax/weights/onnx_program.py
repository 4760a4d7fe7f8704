"""Conversion of a JAX function into an ONNX program.

The function is traced, and each primitive becomes an operator. jax2onnx does the same for more of JAX, but
does not work here (tried: 0.13.0, 0.17.1). Releases after 0.13.0 need an older orbax-checkpoint than this
package. With a symbolic batch size, `lax.pad` fails, and onnxruntime refuses the result of
`lax.reduce_window`.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from jax.extend import core
from onnx import helper, numpy_helper

from transfer_jax.weights.onnx_graph import Graph, Value
from transfer_jax.weights.onnx_operators import OPERATORS

OPSET = 18
"""The version of the operator set: that of ONNX 1.13, December 2022."""
MAX_BYTES = 2**31 - 2**20
"""The largest size of the parameters in bytes; an ONNX file holds 2 GiB, and the program needs some space."""
_INLINED = ("jit", "pjit", "closed_call", "custom_jvp_call", "custom_vjp_call")
_BATCH_SYMBOL = "b"


def onnx_program(
    function: Callable[[jax.Array], jax.Array | dict[str, jax.Array]],
    shape: tuple[int, ...],
    *,
    dtype: Any = np.float32,
    names: tuple[str, str] = ("pixels", "logits"),
    metadata: Mapping[str, str] = MappingProxyType({}),
) -> bytes:
    """Returns an ONNX program for any batch size.

    Values that do not depend on the pixels are computed at export; normalization is folded into kernels, for
    example.

    Args:
        function: A function from an array `(b, *shape)` to a float32 array `(b, …)`, or to several by name.
        shape: The shape of one example.
        dtype: The dtype of the input.
        names: The names of the input and of the output; several outputs have their own names.
        metadata: Texts that are stored in the file, by name.

    Returns:
        The content of an `.onnx` file.

    Raises:
        ValueError: If the function uses an unsupported primitive, or has more than 2 GB of parameters.
    """
    (batch,) = export.symbolic_shape(_BATCH_SYMBOL)
    image = jax.ShapeDtypeStruct((batch, *shape), np.dtype(dtype))
    traced: Any
    traced, shapes = jax.make_jaxpr(function, return_shape=True)(image)
    outputs = shapes if isinstance(shapes, dict) else {names[1]: shapes}
    graph = Graph(batch, names[0])
    results = jax.tree.unflatten(jax.tree.structure(outputs), _evaluate(graph, traced, [names[0]]))
    nodes = graph.nodes_for(results)
    used = {name for node in nodes for name in node.input}
    constants = {name: array for name, array in graph.constants.items() if name in used}
    size = sum(array.nbytes for array in constants.values())
    if size > MAX_BYTES:
        raise ValueError(
            f"the network has {size / 1e9:.1f} GB of parameters, but an ONNX file holds 2 GB; "
            "export as stablehlo instead"
        )
    program = helper.make_graph(
        nodes,
        "transfer_jax",
        [_value_info(names[0], shape, dtype)],
        [_value_info(name, each.shape[1:], np.float32) for name, each in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opset = helper.make_opsetid("", OPSET)
    model = helper.make_model_gen_version(program, opset_imports=[opset], producer_name="transfer_jax")
    helper.set_model_props(model, dict(metadata))
    return model.SerializeToString()


def _value_info(name: str, shape: Sequence[int], dtype: Any) -> Any:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    return helper.make_tensor_value_info(name, kind, [_BATCH_SYMBOL, *shape])


def _evaluate(graph: Graph, traced: Any, inputs: Sequence[Value]) -> list[Value]:
    """Returns the outputs of a traced function. Values that depend on the input are added to the graph."""
    values: dict[Any, Value] = dict(zip(traced.jaxpr.constvars, map(np.asarray, traced.consts), strict=True))
    values.update(zip(traced.jaxpr.invars, inputs, strict=True))

    def read(atom: Any) -> Value:
        if isinstance(atom, core.Literal):
            return np.asarray(atom.val, getattr(atom.aval, "dtype", None))
        return values[atom]

    for equation in traced.jaxpr.eqns:
        outputs = _outputs(graph, equation, [read(atom) for atom in equation.invars])
        values.update(zip(equation.outvars, outputs, strict=True))
    return [read(atom) for atom in traced.jaxpr.outvars]


def _outputs(graph: Graph, equation: Any, inputs: list[Value]) -> Sequence[Value]:
    name, params = equation.primitive.name, equation.params
    if name == "platform_index":
        # The default branch: the branches of named platforms are tuned for XLA on those platforms.
        return [np.array(params["platforms"].index(None))]
    if name == "cond" and isinstance(inputs[0], np.ndarray):
        return _evaluate(graph, params["branches"][int(inputs[0])], inputs[1:])
    if name in _INLINED:
        return _evaluate(graph, params.get("jaxpr") or params["call_jaxpr"], inputs)
    open_ended = any(not isinstance(size, int) for out in equation.outvars for size in out.aval.shape)
    if not open_ended and not any(isinstance(value, str) for value in inputs):
        found = equation.primitive.bind(*map(jnp.asarray, inputs), **params)
        return [np.asarray(array) for array in (found if equation.primitive.multiple_results else [found])]
    if name not in OPERATORS:
        raise ValueError(
            f"ONNX export does not support the JAX primitive {name}; "
            f"supported are {', '.join(sorted(OPERATORS))}"
        )
    return [OPERATORS[name](graph, equation, *inputs)]
