import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transfer_jax.nn.plain_attention import plain_attention

BIASES = {"none": None, "heads": (1, 2, 5, 5), "rows": (3, 1, 1, 5), "keys": (5, 5)}


def arrays(bias: str, dtype):
    rng = np.random.default_rng(0)
    query, key, value, gradient = (rng.normal(size=(3, 5, 2, 8)) for _ in range(4))
    shape = BIASES[bias]
    added = () if shape is None else (rng.normal(size=shape),)
    return [jnp.asarray(each, dtype) for each in (query, key, value, *added)], gradient


def gradients(function, given, gradient):
    out, back = jax.vjp(function, *given)
    return out, *back(jnp.asarray(gradient, out.dtype))


def exact(query, key, value, bias=0.0):
    logits = jnp.einsum("btnc,bsnc->bnts", query, key) / np.sqrt(query.shape[-1]) + bias
    return jnp.einsum("bnts,bsnc->btnc", jax.nn.softmax(logits), value)


@pytest.mark.parametrize("bias", BIASES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-6), (jnp.bfloat16, 2e-2)])
def test_values_and_gradients_match_float64(bias, dtype, tolerance):
    given, gradient = arrays(bias, dtype)
    with jax.enable_x64(True):
        wide = [jnp.asarray(np.asarray(each), jnp.float64) for each in given]
        expected = [np.asarray(each) for each in gradients(exact, wide, gradient)]
    for one, other in zip(gradients(plain_attention, given, gradient), expected, strict=True):
        assert one.dtype == dtype
        assert one.shape == other.shape
        assert np.linalg.norm(np.asarray(one, np.float64) - other) < tolerance * np.linalg.norm(other)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=["float32", "bfloat16"])
def test_values_are_those_of_jax(dtype):
    given, _ = arrays("heads", dtype)
    found, expected = (
        np.asarray(each(*given), np.float32) for each in (plain_attention, jax.nn.dot_product_attention)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_the_backward_pass_keeps_one_array_of_the_probabilities():
    (query, key, value), _ = arrays("none", jnp.float32)
    query, key, value = (jnp.tile(each, (1, 8, 1, 1)) for each in (query, key, value))
    kept = jax.tree.leaves(jax.vjp(plain_attention, query, key, value)[1])
    assert [array.shape for array in kept if array.ndim == 4 and array.shape[-1] == 40] == [(3, 2, 40, 40)]
