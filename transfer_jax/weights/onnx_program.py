"""Conversion of a JAX function into an ONNX program.

The function is traced, and each primitive becomes an operator. jax2onnx does the same for more of JAX, but
does not work here (tried: 0.13.0, 0.17.1). Releases after 0.13.0 need an older orbax-checkpoint than this
package. With a symbolic batch size, `lax.pad` fails, and onnxruntime refuses the result of
`lax.reduce_window`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from jax.extend import core
from onnx import TensorProto, helper, numpy_helper

from transfer_jax.weights.onnx_graph import Graph, Value
from transfer_jax.weights.onnx_operators import OPERATORS

OPSET = 18
"""The version of the operator set: that of ONNX 1.13, December 2022."""
MAX_BYTES = 2**31 - 2**20
"""The largest size of the parameters in bytes; an ONNX file holds 2 GiB, and the program needs some space."""
_INLINED = ("jit", "pjit", "closed_call", "custom_jvp_call", "custom_vjp_call")
_BATCH_SYMBOL = "b"


def onnx_program(function: Callable[[jax.Array], jax.Array], shape: tuple[int, ...]) -> bytes:
    """Returns an ONNX program from `pixels` to `logits`, for any batch size.

    Values that do not depend on the pixels are computed at export; normalization is folded into kernels, for
    example.

    Args:
        function: A function from a float32 array `(b, *shape)` to an array `(b, …)`.
        shape: The shape of one example.

    Returns:
        The content of an `.onnx` file.

    Raises:
        ValueError: If the function uses an unsupported primitive, or has more than 2 GB of parameters.
    """
    (batch,) = export.symbolic_shape(_BATCH_SYMBOL)
    traced: Any = jax.make_jaxpr(function)(jax.ShapeDtypeStruct((batch, *shape), jnp.float32))
    graph = Graph(batch, "pixels")
    (result,) = _evaluate(graph, traced, ["pixels"])
    nodes = graph.nodes_for(result, "logits")
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
        [_value_info("pixels", shape)],
        [_value_info("logits", traced.out_avals[0].shape[1:])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opset = helper.make_opsetid("", OPSET)
    model = helper.make_model_gen_version(program, opset_imports=[opset], producer_name="transfer_jax")
    return model.SerializeToString()


def _value_info(name: str, shape: Sequence[int]) -> Any:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [_BATCH_SYMBOL, *shape])


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
