import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transfer_jax.nn.pooling import max_pool

WINDOWS = pytest.mark.parametrize(
    ("size", "strides", "padding", "ceil_mode"),
    [(3, 2, 1, False), (3, 2, 0, True), (2, 2, 0, False), (3, 1, 1, False)],
)


def images(dtype=np.float32):
    """Returns images with many equal values, as after a ReLU."""
    rng = np.random.default_rng(0)
    return np.maximum(rng.integers(-9, 9, (2, 10, 13, 3)), 0).astype(dtype)


@pytest.mark.extended
@WINDOWS
def test_values_and_gradients_match_pytorch(size, strides, padding, ceil_mode):
    torch = pytest.importorskip("torch")
    x = images()
    theirs = torch.from_numpy(x).permute(0, 3, 1, 2).requires_grad_()
    expected = torch.nn.functional.max_pool2d(theirs, size, strides, padding, ceil_mode=ceil_mode)
    found, pull = jax.vjp(lambda x: max_pool(x, size, strides, padding, ceil_mode=ceil_mode), jnp.asarray(x))
    np.testing.assert_array_equal(found, expected.detach().permute(0, 2, 3, 1).numpy())
    dy = np.random.default_rng(1).standard_normal(found.shape).astype(np.float32)
    expected.backward(torch.from_numpy(dy).permute(0, 3, 1, 2))
    assert theirs.grad is not None
    np.testing.assert_allclose(pull(jnp.asarray(dy))[0], theirs.grad.permute(0, 2, 3, 1).numpy(), rtol=1e-5)


def test_half_precision_is_exact():
    x = jnp.asarray(images(), jnp.bfloat16) * 1.01
    found = max_pool(x, 3, 2, 1)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_array_equal(found.astype(jnp.float32), max_pool(x.astype(jnp.float32), 3, 2, 1))


@pytest.mark.parametrize("place", [(0, 0), (1, 1), (2, 2)])
def test_nan_is_the_maximum(place):
    x = np.zeros((1, 3, 3, 1), np.float32)
    x[0, *place, 0] = np.nan
    assert np.isnan(max_pool(jnp.asarray(x), 3, 2)).all()


def test_accelerators_keep_the_pooling_of_xla():
    traced = jax.jit(jax.grad(lambda x: (max_pool(x, 3, 2, 1) ** 2).sum())).trace(jnp.asarray(images()))
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert text.count("stablehlo.reduce_window") == 1
    assert text.count("stablehlo.select_and_scatter") == 1
    on_cpu = traced.lower(lowering_platforms=("cpu",)).as_text()
    assert "reduce_window" not in on_cpu
    assert "select_and_scatter" not in on_cpu
