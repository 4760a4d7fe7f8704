import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transfer_jax.training.compile import compile_function


def test_a_matrix_product_by_hand():
    a, b = jnp.ones((8, 16)), jnp.ones((16, 32))
    compiled = compile_function(lambda a, b: a @ b, a, jax.ShapeDtypeStruct(b.shape, b.dtype))
    np.testing.assert_array_equal(compiled(a, b), np.full((8, 32), 16))
    assert compiled.flops == pytest.approx(2 * 8 * 16 * 32, rel=0.01)
    assert compiled.seconds > 0


def test_the_memory_of_donated_arguments_is_given_away():
    a, b = jnp.ones(1000), jnp.ones(1000)
    compiled = compile_function(lambda a, b: a + b, a, b, donate=(0,))
    np.testing.assert_array_equal(compiled(a, b), np.full(1000, 2))
    assert a.is_deleted()
    assert not b.is_deleted()


def test_other_shapes_are_refused():
    compiled = compile_function(lambda a: a + 1, jnp.ones(3))
    with pytest.raises(TypeError, match="compiled"):
        compiled(jnp.ones(4))
