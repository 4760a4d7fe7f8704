import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from transfer_jax.nn.activations import gelu, gelu_tanh, hard_swish, quick_gelu, silu

VALUES = np.linspace(-9, 9, 1001)


def exact_gelu(x):
    return x * scipy.special.ndtr(x)


def tanh_gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


ACTIVATIONS = pytest.mark.parametrize(
    ("activation", "formula"),
    [
        (gelu, exact_gelu),
        (gelu_tanh, tanh_gelu),
        (quick_gelu, lambda x: x * scipy.special.expit(1.702 * x)),
        (silu, lambda x: x * scipy.special.expit(x)),
        (hard_swish, lambda x: x * np.clip(x + 3, 0, 6) / 6),
    ],
)


@ACTIVATIONS
def test_values_and_gradients_match_the_formula(activation, formula):
    x = jnp.asarray(VALUES, jnp.float32)
    np.testing.assert_allclose(activation(x), formula(VALUES), atol=1e-6)
    step = 1e-4
    slopes = (formula(VALUES + step) - formula(VALUES - step)) / (2 * step)
    smooth = np.abs(np.abs(VALUES) - 3) > step  # the hard swish has corners at -3 and 3
    np.testing.assert_allclose(jax.vmap(jax.grad(activation))(x)[smooth], slopes[smooth], atol=1e-5)


@ACTIVATIONS
def test_half_precision_is_rounded_once(activation, formula):
    x = jnp.asarray(VALUES, jnp.bfloat16)
    found = activation(x)
    assert found.dtype == jnp.bfloat16
    exact = formula(np.asarray(x, np.float64))
    np.testing.assert_allclose(np.asarray(found, np.float64), exact, rtol=2**-8, atol=1e-6)


@ACTIVATIONS
def test_the_backward_pass_keeps_the_input_alone(activation, formula):
    x = jnp.asarray(VALUES, jnp.bfloat16)
    kept = jax.tree.leaves(jax.vjp(activation, x)[1])
    assert [(array.shape, array.dtype) for array in kept] == [(x.shape, x.dtype)]
    slope = jax.vjp(activation, x)[1](jnp.ones_like(x))[0]
    assert slope.dtype == jnp.bfloat16
