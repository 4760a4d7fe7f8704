"""Convolutions and linear layers in int8, compared with float64."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transfer_jax.nn.conv import conv2d
from transfer_jax.nn.initializers import NumpyRngs
from transfer_jax.nn.int8 import Inputs, Int8Kernel, observed, quantize
from transfer_jax.nn.layers import Conv, ConvNorm, Linear

RNG = np.random.default_rng(0)


def error(found, exact) -> float:
    """The root mean square of the error, relative to that of the exact values."""
    return float(np.linalg.norm(np.asarray(found, np.float64) - exact) / np.linalg.norm(exact))


def inputs(*shape, outlier=1.0):
    """Inputs with another range in each channel, as after a GELU, and one channel of large values."""
    x = RNG.standard_normal(shape) * np.geomspace(0.1, 1, shape[-1])
    x = np.where(x > 0, x, 0.1 * x)
    x[..., 3] *= outlier
    return jnp.asarray(x, jnp.float32)


@pytest.mark.parametrize("outlier", [1.0, 100.0])
def test_a_product(outlier):
    x, kernel = inputs(64, 48, outlier=outlier), jnp.asarray(RNG.standard_normal((48, 32)), jnp.float32)
    found = quantize(kernel, Inputs.of(x))
    assert found.values.dtype == jnp.int8
    assert found.values.shape == kernel.shape
    exact = np.asarray(x, np.float64) @ np.asarray(kernel, np.float64)
    assert error(found.product(x), exact) < 0.02


def test_values_beyond_the_ranges_are_clipped():
    x, kernel = inputs(64, 16), jnp.eye(16)
    found = quantize(kernel, Inputs.of(x))
    assert error(found.product(100 * x), np.asarray(found.product(100 * x), np.float64)) == 0
    assert np.abs(found.product(100 * x)).max() < 2.1 * np.abs(x).max()


@pytest.mark.parametrize("kernel_size", [1, 3])
@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize("padding", ["SAME", "VALID", ((1, 1), (2, 0))])
def test_a_convolution(kernel_size, strides, padding):
    # All values are far from zero: the padding is still zeros.
    x = 5 + inputs(2, 9, 8, 16)
    kernel = jnp.asarray(RNG.standard_normal((kernel_size, kernel_size, 16, 24)), jnp.float32)
    gain = jnp.asarray(RNG.uniform(0.5, 2, 24), jnp.float32)
    options = {"strides": strides, "padding": padding}
    exact = conv2d(x, kernel, **options) * gain
    found = quantize(kernel, Inputs.of(x)).convolve(x, gain=gain, **options)
    assert found.shape == exact.shape
    assert error(found, np.asarray(exact, np.float64)) < 0.02


def test_accelerators_multiply_integers_and_a_cpu_floats():
    kernel = quantize(jnp.ones((16, 8)), Inputs.of(inputs(4, 16)))
    lowered = jax.jit(Int8Kernel.product).trace(kernel, jnp.ones((4, 16)))
    texts = {name: lowered.lower(lowering_platforms=(name,)).as_text() for name in ("cpu", "cuda", "tpu")}
    assert "tensor<4x16xi8>, tensor<16x8xi8>) -> tensor<4x8xi32>" in texts["tpu"]
    assert "tensor<4x16xi8>, tensor<16x8xi8>) -> tensor<4x8xi32>" in texts["cuda"]
    assert "xi32>" not in texts["cpu"]


@pytest.mark.parametrize("strides", [1, 2])
def test_integers_and_floats_give_the_same(strides, monkeypatch):
    x = inputs(2, 8, 8, 16)
    kernel = quantize(jnp.asarray(RNG.standard_normal((3, 3, 16, 8)), jnp.float32), Inputs.of(x))
    floats = kernel.convolve(x, strides=strides, padding="SAME"), kernel_1x1(kernel).product(x)
    monkeypatch.setattr(jax.lax, "platform_dependent", lambda *args, cpu, default: default(*args))
    integers = kernel.convolve(x, strides=strides, padding="SAME"), kernel_1x1(kernel).product(x)
    for one, other in zip(floats, integers, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def kernel_1x1(kernel: Int8Kernel) -> Int8Kernel:
    return Int8Kernel(kernel.values[0, 0], kernel.scale, kernel.shift, kernel.factor, kernel.offset)


def test_layers_that_can_be_computed_are_observed():
    rngs = NumpyRngs(0)
    image = jnp.ones((1, 4, 4, 16))
    layers = {
        "linear": (Linear(16, 4, rngs=rngs), jnp.stack([jnp.zeros(16), jnp.arange(16.0)])),
        "conv": (Conv(16, 8, 3, rngs=rngs), image),
        "few channels": (Conv(3, 8, 3, rngs=rngs), image[..., :3]),
        "depthwise": (Conv(16, 16, 3, groups=16, rngs=rngs), image),
        "pooled": (Conv(16, 8, rngs=rngs), image[:, :1, :1]),
    }
    with observed() as found:
        for layer, x in layers.values():
            layer(x)
    assert {name for name, (layer, _) in layers.items() if id(layer) in found} == {"linear", "conv"}
    seen = found[id(layers["linear"][0])]
    np.testing.assert_array_equal(seen.low, 0)
    np.testing.assert_array_equal(seen.high, np.arange(16))
    np.testing.assert_array_equal(seen.total / seen.values, np.arange(16) / 2)


@pytest.mark.parametrize("shape", [(256, 16), (4, 8, 8, 16)])
def test_the_mean_of_the_outputs_is_that_of_the_layer(shape):
    x = 3 + inputs(*shape)
    kernel = jnp.asarray(RNG.standard_normal((*(1,) * (len(shape) - 2), 16, 8)), jnp.float32)
    found = quantize(kernel, Inputs.of(x))
    product = found.product(x) if x.ndim == 2 else found.convolve(x, strides=1, padding="SAME")
    exact = x @ kernel.reshape(16, 8)
    axes = tuple(range(x.ndim - 1))
    np.testing.assert_allclose(product.mean(axes), exact.mean(axes), atol=0.003 * float(exact.std()))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_layers_take_kernels_in_int8(dtype):
    layer = ConvNorm(16, 8, 3, use_bias=True, activation=jax.nn.relu, rngs=NumpyRngs(0))
    layer.norm.use_running_average = True
    layer.norm.mean[...], layer.norm.var[...] = jnp.full(8, 0.3), jnp.full(8, 4.0)
    x = inputs(2, 8, 8, 16)
    exact = np.asarray(layer(x), np.float64)
    kernel: Any = quantize(layer.conv.kernel[...], Inputs.of(x))
    layer.conv.kernel.set_value(kernel)
    found = layer(x.astype(dtype))
    assert found.dtype == dtype
    assert error(found, exact) < 0.03
