import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from transfer_jax.nn import space_to_depth
from transfer_jax.nn.conv import conv2d
from transfer_jax.nn.conv_geometry import Window

# (kernel side, in channels, out channels, groups)
DEPTHWISE = (3, 6, 6, 6)
WIDE_DEPTHWISE = (5, 4, 4, 4)
POINTWISE = (1, 6, 4, 1)
PLAIN = (3, 3, 8, 1)
GROUPED = (3, 6, 9, 3)
MANY_CHANNELS = (3, 32, 40, 1)  # Winograd's filtering in float32, if there are enough pixels
KERNELS = pytest.mark.parametrize("kernel", [DEPTHWISE, WIDE_DEPTHWISE, POINTWISE, PLAIN, GROUPED])


def reference(x, kernel, *, strides, padding, groups):
    return lax.conv_general_dilated(
        x,
        kernel,
        (strides, strides),
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def example(kernel, size=(9, 8), dtype=np.float32):
    side, channels, out, groups = kernel
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, *size, channels)).astype(dtype)
    return jnp.asarray(x), jnp.asarray(
        rng.standard_normal((side, side, channels // groups, out)).astype(dtype)
    )


@functools.partial(jax.jit, static_argnums=0, static_argnames=("strides", "padding", "groups"))
def outputs_and_gradients(convolution, x, weights, dy, **options):
    """Returns the outputs, and the gradients for output gradients `dy`, in one program."""
    outputs, pull = jax.vjp(lambda x, k: convolution(x, k, **options), x, weights)
    return outputs, pull(dy)


def on_cpu(function, *arguments):
    """Returns the program for CPUs, on any machine."""
    return jax.jit(function).trace(*arguments).lower(lowering_platforms=("cpu",)).as_text()


@KERNELS
@pytest.mark.parametrize("strides", [1, 2, 3])
@pytest.mark.parametrize("padding", ["SAME", "VALID", ((2, 1), (0, 3))])
def test_forward_and_gradients_match_xla(kernel, strides, padding):
    x, weights = example(kernel)
    options = {"strides": strides, "padding": padding, "groups": kernel[3]}
    shape = jax.eval_shape(lambda x, k: reference(x, k, **options), x, weights).shape
    dy = jnp.asarray(np.random.default_rng(1).standard_normal(shape).astype(np.float32))
    expected, expected_gradients = outputs_and_gradients(reference, x, weights, dy, **options)
    found, gradients = outputs_and_gradients(conv2d, x, weights, dy, **options)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [(9, 8), (10, 13), (3, 40)])
@pytest.mark.parametrize("padding", ["SAME", "VALID", ((2, 1), (0, 2)), ((3, 0), (1, 4))])
def test_many_channels_take_fewer_multiplications(size, padding):
    x, weights = example(MANY_CHANNELS, size)
    x = jnp.concatenate([x] * 3)
    shape = jax.eval_shape(lambda x, k: conv2d(x, k, padding=padding), x, weights).shape
    dy = jnp.asarray(np.random.default_rng(1).standard_normal(shape).astype(np.float32))
    expected, theirs_all = outputs_and_gradients(
        reference, x, weights, dy, strides=1, padding=padding, groups=1
    )
    found, ours_all = outputs_and_gradients(conv2d, x, weights, dy, padding=padding)
    np.testing.assert_allclose(found, expected, atol=3e-6 * np.abs(expected).max())
    for ours, theirs in zip(ours_all, theirs_all, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=3e-6 * np.abs(theirs).max())
    assert "stablehlo.convolution" not in on_cpu(lambda x, k: conv2d(x, k, padding=padding), x, weights)


@pytest.mark.parametrize("kernel", [DEPTHWISE, POINTWISE, MANY_CHANNELS])
@pytest.mark.parametrize("strides", [1, 2])
def test_half_precision_stays_half_and_rounds_once(kernel, strides):
    x, weights = (array.astype(jnp.bfloat16) for array in example(kernel))
    options = {"strides": strides, "padding": "SAME", "groups": kernel[3]}
    found = conv2d(x, weights, **options)
    assert found.dtype == jnp.bfloat16
    exact = reference(x.astype(jnp.float32), weights.astype(jnp.float32), **options)
    np.testing.assert_allclose(found.astype(np.float32), exact, rtol=2**-8, atol=1e-5)
    assert "stablehlo.convolution" not in on_cpu(lambda x, k: conv2d(x, k, **options), x, weights)


@pytest.mark.parametrize("kernel", [DEPTHWISE, POINTWISE, MANY_CHANNELS])
@pytest.mark.parametrize("strides", [1, 2])
def test_half_precision_gradients_stay_half_and_are_close(kernel, strides):
    x, weights = example(kernel)

    def gradients(convolution, dtype):
        def loss(x, k):
            y = convolution(x, k, strides=strides, padding="SAME", groups=kernel[3])
            return (y.astype(jnp.float32) ** 2).sum()

        return jax.jit(jax.grad(loss, argnums=(0, 1)))(x.astype(dtype), weights.astype(dtype))

    for found, expected in zip(
        gradients(conv2d, jnp.bfloat16), gradients(reference, jnp.float32), strict=True
    ):
        assert found.dtype == jnp.bfloat16
        scale = np.abs(expected).max()
        np.testing.assert_allclose(found.astype(np.float32) / scale, expected / scale, atol=0.03)


@KERNELS
def test_every_transformation_of_jax_applies(kernel):
    x, weights = example(kernel)
    images = jnp.stack([x, 2 * x])

    def gradient(x):
        return jax.grad(lambda k: (conv2d(x, k, strides=2, groups=kernel[3]) ** 2).sum())(weights)

    expected = jnp.stack([gradient(x), gradient(2 * x)])
    found = jax.jit(jax.vmap(gradient))
    np.testing.assert_allclose(found(images), expected, rtol=1e-4, atol=1e-4)
    exported = jax.export.export(found, platforms=("cpu", "cuda", "tpu"))(images)
    np.testing.assert_allclose(exported.call(images), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="other compilers make a single fusion of both")
@pytest.mark.parametrize("kernel", [DEPTHWISE, POINTWISE])
def test_an_unused_gradient_costs_nothing(kernel):
    x, weights = example(kernel, (32, 32))

    def cost(argnums):
        gradient = jax.grad(lambda x, k: (conv2d(x, k, groups=kernel[3]) ** 2).sum(), argnums=argnums)

        def one_of_two(x, k):
            both = gradient(x, k)
            return both[0] if len(argnums) == 1 else both

        text = str(jax.jit(one_of_two).lower(x, weights).compile().as_text())
        return text.count("while(") + text.count("dot("), text.count("fusion(")

    assert sum(cost((0,))) < sum(cost((0, 1)))
    assert sum(cost((1,))) < sum(cost((0, 1)))


@pytest.mark.parametrize("kernel", [DEPTHWISE, POINTWISE, MANY_CHANNELS])
@pytest.mark.parametrize("platform", ["tpu", "cuda"])
@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16])
def test_accelerators_keep_the_convolution_of_xla(kernel, platform, dtype):
    x, weights = example(kernel, (9, 16), dtype)

    def loss(x, k):
        return (conv2d(x, k, groups=kernel[3]) ** 2).sum()

    gradients = jax.grad(loss, argnums=(0, 1))
    text = jax.jit(gradients).trace(x, weights).lower(lowering_platforms=(platform,)).as_text()
    assert text.count("stablehlo.convolution") == 3  # forward, and the gradients of images and kernel
    assert "stablehlo.dot_general" not in text
    assert "stablehlo.while" not in text
    kept = on_cpu(gradients, x, weights).count("stablehlo.convolution")
    assert kept == (kernel == MANY_CHANNELS)  # the gradient of the kernel


def test_errors_name_mismatched_shapes():
    x, weights = example(DEPTHWISE)
    with pytest.raises(ValueError, match="6 channels do not match a kernel"):
        conv2d(x, weights, groups=2)


@pytest.mark.parametrize(
    ("side", "size", "strides", "padding"),
    [
        (7, (32, 32), 2, ((3, 3), (3, 3))),
        (7, (33, 30), 2, ((2, 3), (3, 2))),
        (8, (20, 20), 2, ((0, 0), (0, 0))),
        (9, (41, 38), 3, ((5, 1), (0, 6))),
        (7, (33, 33), 4, ((3, 3), (2, 4))),
    ],
)
def test_blocks_of_pixels_give_the_same_outputs_and_gradients(side, size, strides, padding):
    x, weights = example((side, 3, 8, 1), size)

    def by_blocks(x, kernel, *, strides, padding, groups):
        return space_to_depth.correlate(x, kernel, Window(strides, padding, groups))

    options = {"strides": strides, "padding": padding, "groups": 1}
    shape = jax.eval_shape(lambda x, k: reference(x, k, **options), x, weights).shape
    dy = jnp.asarray(np.random.default_rng(1).standard_normal(shape).astype(np.float32))
    found, expected = (
        outputs_and_gradients(each, x, weights, dy, **options) for each in (by_blocks, reference)
    )
    for one, two in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, two, atol=2e-4)


def test_only_tpus_see_blocks_of_pixels():
    x, weights = example((7, 3, 8, 1), (16, 16))
    traced = jax.jit(lambda x, k: conv2d(x, k, strides=2, padding=((3, 3), (3, 3)))).trace(x, weights)
    programs = {
        platform: traced.lower(lowering_platforms=(platform,)).as_text()
        for platform in ("cpu", "cuda", "tpu")
    }
    assert {platform for platform, text in programs.items() if "4x4x12x8" in text} == {"tpu"}
