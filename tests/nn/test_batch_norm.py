import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transfer_jax.nn.batch_norm import batch_norm

EPSILON = 1e-3


def plain(x, scale, bias):
    """The formulas, for automatic differentiation."""
    mean = x.mean((0, 1, 2))
    var = ((x - mean) ** 2).mean((0, 1, 2))
    return (x - mean) / jnp.sqrt(var + EPSILON) * scale + bias, mean, var


def ours(x, scale, bias):
    return batch_norm(x, scale, bias, epsilon=EPSILON)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 5e-3)])
def test_results_and_gradients_against_float64(dtype, tolerance):
    """The relative error of each array, as norms."""
    rng = np.random.default_rng(0)
    shapes = {"x": (4, 6, 5, 8), "scale": (8,), "bias": (8,), "weight": (4, 6, 5, 8)}
    arrays = {name: jnp.asarray(rng.normal(1.0, 2.0, shape), dtype) for name, shape in shapes.items()}

    def results(function, arrays):
        *inputs, weight = (arrays[name] for name in shapes)

        def loss(*inputs):
            y, *statistics = function(*inputs)
            return (jax.nn.relu(y) * weight).astype(weight.dtype).sum(), (y, *statistics)

        gradients, values = jax.grad(loss, (0, 1, 2), has_aux=True)(*inputs)
        return (*values, *gradients)

    found = jax.jit(lambda arrays: results(ours, arrays))(arrays)
    with jax.enable_x64(True):
        exact = {name: jnp.asarray(np.asarray(array, np.float64)) for name, array in arrays.items()}
        expected = jax.tree.map(np.asarray, results(plain, exact))
    assert [each.dtype for each in found] == [dtype, "float32", "float32", *[dtype] * 3]
    for one, other in zip(found, expected, strict=True):
        difference = np.asarray(one, np.float64) - other
        assert np.linalg.norm(difference) <= tolerance * np.linalg.norm(other)


def test_backward_keeps_the_input_in_its_dtype():
    x, channel = jnp.zeros((2, 16, 16, 8), jnp.bfloat16), jnp.ones(8, jnp.bfloat16)
    _, backward = jax.vjp(lambda *inputs: ours(*inputs)[0], x, channel, channel)
    kept = sum(leaf.nbytes for leaf in jax.tree.leaves(backward))
    assert kept <= x.nbytes + 1024
