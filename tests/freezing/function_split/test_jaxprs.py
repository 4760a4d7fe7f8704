"""The parts of JAX that may change between its versions."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from transfer_jax.freezing.function_split import jaxprs

X = jnp.arange(6.0).reshape(2, 3)


def equations(function, *arguments):
    return jaxprs.trace(function, *arguments)[0].eqns


def test_trace_returns_constants_and_shapes():
    jaxpr, constants, shapes = jaxprs.trace(lambda x: {"a": x + np.arange(3.0), "b": 2}, X)
    assert len(jaxpr.constvars) == len(constants) == 1
    assert shapes["a"].shape == (2, 3)
    assert shapes["b"].shape == ()


def test_program_is_evaluated_and_printed():
    jaxpr, _, _ = jaxprs.trace(lambda x: jnp.sin(x) + 1.0, X)
    run = jaxprs.as_function(jaxpr.invars, jaxpr.outvars, jaxpr.eqns)
    np.testing.assert_array_equal(run(X)[0], jnp.sin(X) + 1.0)
    text = jaxprs.as_text(jaxpr.invars, jaxpr.outvars, jaxpr.eqns)
    assert "sin" in text
    again, _, _ = jaxprs.trace(lambda x: jnp.sin(x) + 1.0, X)
    assert jaxprs.as_text(again.invars, again.outvars, again.eqns) == text


def test_literals_variables_and_sizes():
    (equation,) = equations(lambda x: x * 2.0, X)
    assert [jaxprs.is_literal(atom) for atom in equation.invars] == [False, True]
    (result,) = equation.outvars
    assert jaxprs.shape_of(result) == (2, 3)
    assert jaxprs.size_in_bytes(result) == 24
    assert jaxprs.struct_of(result) == jax.ShapeDtypeStruct((2, 3), jnp.float32)
    assert jaxprs.shape_of(jaxprs.variable_like(result)) == (2, 3)
    assert jaxprs.shape_of(jaxprs.variable_of_shape(result, [5])) == (5,)


@pytest.mark.parametrize(
    "call",
    [
        jax.jit(jnp.sin),
        jax.checkpoint(jnp.sin),
        jax.nn.relu,
        jax.custom_jvp(jnp.sin),
        jax.custom_vjp(jnp.sin),
    ],
    ids=["jit", "checkpoint", "relu", "custom_jvp", "custom_vjp"],
)
def test_calls_are_opened(call):
    if isinstance(call, jax.custom_jvp) and call is not jax.nn.relu:
        call.defjvp(lambda primals, tangents: (jnp.sin(*primals), jnp.cos(*primals) * tangents[0]))
    if isinstance(call, jax.custom_vjp):
        call.defvjp(lambda x: (jnp.sin(x), x), lambda x, g: (jnp.cos(x) * g,))
    (equation,) = equations(call, X)
    inner = jaxprs.inner_jaxpr(equation)
    assert inner is not None
    assert len(inner[0].eqns) >= 1
    assert next(iter(jaxprs.inner_jaxprs(equation))).eqns


def test_operations_are_counted():
    assert jaxprs.flops(equations(lambda x: x @ x.T, X)[-1]) == 2 * 2 * 2 * 3
    image, kernel = jnp.ones((1, 8, 8, 3)), jnp.ones((3, 3, 3, 5))
    numbers = ("NHWC", "HWIO", "NHWC")
    convolution = equations(
        lambda x, k: jax.lax.conv_general_dilated(x, k, (1, 1), "SAME", dimension_numbers=numbers),
        image,
        kernel,
    )
    assert jaxprs.flops(convolution[-1]) == 2 * 8 * 8 * 5 * 3 * 3 * 3
    scan = equations(
        lambda x: jax.lax.scan(lambda h, _: (h @ jnp.ones((3, 3)), None), x, None, length=4)[0], X
    )[-1]
    assert jaxprs.flops(scan) == 4 * 2 * 2 * 3 * 3
    assert jaxprs.scan_counts(scan)[1] == 1
    assert jaxprs.flops(equations(jnp.sin, X)[0]) == 0
    assert math.isinf(jaxprs.flops(equations(lambda x: jnp.linalg.svd(x, compute_uv=False), X)[-1]))


def test_source_names_file_and_line():
    (equation,) = equations(lambda x: x * 2.0, X)
    assert "test_jaxprs.py" in jaxprs.source_of(equation)


def test_source_of_a_layer_is_the_line_that_calls_it():
    layer = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    product = next(each for each in equations(lambda x: layer(x), X) if each.primitive.name == "dot_general")
    assert "test_jaxprs.py" in jaxprs.source_of(product)


def test_checkpointed_call_of_another_program():
    (call,) = equations(jax.checkpoint(jnp.sin), X)
    other, _, _ = jaxprs.trace(jnp.cos, X)
    new = jaxprs.checkpointed_call(call, other)
    run = jaxprs.as_function(new.invars, new.outvars, [new])
    np.testing.assert_array_equal(run(X)[0], jnp.cos(X))


def test_primitives_that_are_objects_are_named_and_expanded():
    (call,) = equations(lambda x: jnp.frexp(x)[0], X)
    inner = jaxprs.opened(call.params["jaxpr"])[0].eqns[0]
    if inner.primitive.name != "call_hi_primitive":
        pytest.skip("this version of JAX has no such primitives")
    assert jaxprs.name_of(inner) == "Frexp"
    expanded = jaxprs.expanded(inner)
    assert expanded is not None
    run = jaxprs.as_function(expanded[0].invars, expanded[0].outvars, expanded[0].eqns)
    np.testing.assert_array_equal(run(X)[0], jnp.frexp(X)[0])
    assert jaxprs.name_of(equations(jnp.sin, X)[0]) == "sin"
    assert jaxprs.expanded(equations(jnp.sin, X)[0]) is None


def test_policies_of_checkpointed_calls():
    def saved(policy):
        (call,) = equations(jax.checkpoint(lambda x: x @ x.T, policy=policy), X)
        assert jaxprs.is_checkpoint(call)
        return jaxprs.is_saved(call, jaxprs.opened(call.params["jaxpr"])[0].eqns[-1])

    assert saved(jax.checkpoint_policies.dots_saveable)
    assert saved(jax.checkpoint_policies.offload_dot_with_no_batch_dims("device", "pinned_host"))
    assert not saved(jax.checkpoint_policies.nothing_saveable)
    assert not saved(None)
