import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transfer_jax.nn.add_bias import add_bias, sums_by_product


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_gradient_of_a_bias_is_the_sum_over_rows(dtype):
    x, gradient = jax.random.normal(jax.random.key(0), (2, 3, 5, 4)).astype(dtype)
    found, vjp = jax.vjp(add_bias, x, x[0, 0])
    np.testing.assert_array_equal(found, x + x[0, 0])
    of_x, of_bias = vjp(gradient)
    np.testing.assert_array_equal(of_x, gradient)
    np.testing.assert_array_equal(of_bias, gradient.sum((0, 1)))
    exact = np.asarray(gradient, np.float64).sum((0, 1))
    np.testing.assert_allclose(np.asarray(sums_by_product(gradient), np.float64), exact, rtol=1e-2, atol=1e-2)
