import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from transfer_jax.nn.initializers import NumpyRngs
from transfer_jax.nn.layers import Conv, ConvNorm
from transfer_jax.nn.pooling import max_pool

CHANNELS = 6


def unfused(block, x):
    """Returns the output by definition: convolution, Flax's own batch normalization, activation."""
    return jax.nn.relu6(block.norm(block.conv(x)))


@pytest.fixture(params=[CHANNELS, 1], ids=["depthwise", "dense"])
def block(request):
    block = ConvNorm(
        CHANNELS, CHANNELS, 3, groups=request.param, epsilon=1e-3, activation=jax.nn.relu6, rngs=NumpyRngs(0)
    )
    rng = np.random.default_rng(0)
    for name, low, high in (("scale", 0.5, 2), ("bias", -1, 1), ("mean", -1, 1), ("var", 0.5, 2)):
        getattr(block.norm, name)[...] = jnp.asarray(rng.uniform(low, high, CHANNELS), jnp.float32)
    return block


@pytest.fixture
def x():
    return jnp.asarray(np.random.default_rng(1).normal(0.5, 1, (4, 9, 8, CHANNELS)), jnp.float32)


@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
def test_output_gradients_and_statistics_match_flax(block, x, training):
    block.train() if training else block.eval()
    graphdef, state = nnx.split(block)

    def run(forward):
        def loss(params, stats, x):
            block = nnx.merge(graphdef, params, stats, copy=True)
            y = forward(block, x)
            return (y**2).sum(), (y, nnx.to_pure_dict(nnx.state(block, nnx.BatchStat)))

        params, stats = nnx.split_state(state, nnx.Param, nnx.BatchStat)
        params = nnx.to_pure_dict(params)
        return jax.jit(jax.grad(loss, argnums=(0, 2), has_aux=True))(nnx.State(params), stats, x)

    found, expected = run(lambda block, x: block(x)), run(unfused)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * np.abs(b).max()), found, expected
    )


@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
def test_output_has_the_dtype_of_the_input(block, x, training):
    block.train() if training else block.eval()
    expected = block(x)
    found = block(x.astype(jnp.bfloat16))
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(found.astype(np.float32), expected, atol=0.1)


def test_inference_leaves_the_statistics_alone(block, x):
    block.eval()
    before = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(block, nnx.BatchStat)))
    block(x)
    jax.tree.map(np.testing.assert_array_equal, nnx.to_pure_dict(nnx.state(block, nnx.BatchStat)), before)


@pytest.mark.parametrize(("training", "passes"), [(False, 0), (True, 2)], ids=["inference", "training"])
def test_inference_multiplies_the_kernel_and_not_the_images(block, x, training, passes):
    block.train() if training else block.eval()
    graphdef, state = nnx.split(block)
    forward = jax.jit(lambda state, x: nnx.merge(graphdef, state, copy=True)(x))
    lines = forward.trace(state, x).lower(lowering_platforms=("tpu",)).as_text().splitlines()
    images = "tensor<" + "x".join(map(str, x.shape)) + "xf32>"
    assert sum("stablehlo.multiply" in line and images in line for line in lines) == passes


@pytest.mark.parametrize(("ceil_mode", "expected"), [(False, [[10]]), (True, [[10, 11], [14, 15]])])
def test_ceil_mode_keeps_the_last_window(ceil_mode, expected):
    x = jnp.arange(16.0).reshape(1, 4, 4, 1)
    np.testing.assert_array_equal(max_pool(x, 3, 2, ceil_mode=ceil_mode)[0, :, :, 0], expected)


def test_kernels_may_be_wider_than_high():
    conv = Conv(1, 1, (1, 3), rngs=NumpyRngs(0))
    conv.kernel[...] = jnp.ones((1, 3, 1, 1))
    x = jnp.array([[1.0, 2.0, 3.0], [10.0, 20.0, 30.0]]).reshape(1, 2, 3, 1)
    np.testing.assert_array_equal(conv(x)[0, :, :, 0], [[3, 6, 5], [30, 60, 50]])
