import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transfer_jax.nn.layer_norm import layer_norm


def formula(x, scale, bias, epsilon):
    mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / jnp.sqrt(var + epsilon) * scale + bias


@pytest.fixture(scope="module")
def arrays():
    rng = np.random.default_rng(0)
    x = rng.normal(2, 3, (4, 5, 16))
    x[0, 0] = 1.5  # a row without variance
    return x, rng.normal(1, 0.5, 16), rng.normal(size=16), rng.normal(size=(4, 5, 16))


def gradients(function, x, scale, bias, gradient):
    y, back = jax.vjp(lambda *arrays: function(*arrays, 1e-3), x, scale, bias)
    return y, *back(gradient.astype(y.dtype))


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-5), (jnp.bfloat16, 3e-2)])
def test_values_and_gradients_are_those_of_the_formula(arrays, dtype, tolerance):
    given = [jnp.asarray(array, dtype) for array in arrays]
    with jax.enable_x64(True):
        wide = (jnp.asarray(np.asarray(array), jnp.float64) for array in given)
        expected = [np.asarray(each) for each in gradients(formula, *wide)]
    found = gradients(layer_norm, *given)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == dtype
        error = np.linalg.norm(np.asarray(one, np.float64) - other) / np.linalg.norm(other)
        assert error < tolerance


def test_parameters_of_another_precision_decide_the_dtype(arrays):
    x, scale, bias, _ = arrays
    found = layer_norm(jnp.asarray(x, jnp.bfloat16), jnp.asarray(scale), jnp.asarray(bias), 1e-3)
    assert found.dtype == jnp.float32


def test_the_backward_pass_keeps_one_array_of_the_input(arrays):
    x, scale, bias, _ = (jnp.asarray(array, jnp.float32) for array in arrays)
    _, pull = jax.vjp(lambda x, scale, bias: layer_norm(x, scale, bias, 1e-3), x, scale, bias)
    kept = jax.tree.leaves(pull)
    assert [array.shape for array in kept if array.size >= x.size] == [x.shape]
