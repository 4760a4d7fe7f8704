"""Attention on each platform against float64; the kernel for TPUs runs in interpret mode."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transfer_jax.nn import attention_kernel
from transfer_jax.nn.attention import _BACKWARD, _FORWARD, _Arrays, attend, attend_packed
from transfer_jax.nn.attention_kernel import Sizes
from transfer_jax.nn.flops import multiply_adds
from transfer_jax.nn.half_attention import half_attention, softmax
from transfer_jax.nn.plain_attention import plain_attention
from transfer_jax.nn.rotation import Rotation

HALF = 0.006
"""Bound of relative errors in bfloat16, whose numbers are rounded to 0.004."""
SINGLE = 1e-6


def exact(query, key, value, bias=None, gradient=None):
    """The attention of `(batch, tokens, heads, channels)` in float64, and its gradients."""
    query, key, value = (np.asarray(x, np.float64) for x in (query, key, value))
    scale, shared = query.shape[-1] ** -0.5, query.shape[2] // key.shape[2]
    key, value = (np.repeat(x, shared, 2) for x in (key, value))
    logits = np.einsum("bqhc,bkhc->bhqk", query, key) * scale + (
        0 if bias is None else np.asarray(bias, float)
    )
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    mixed = np.einsum("bhqk,bkhc->bqhc", weights, value)
    if gradient is None:
        return mixed
    gradient = np.asarray(gradient, np.float64)
    of_weights = np.einsum("bqhc,bkhc->bhqk", gradient, value)
    of_logits = weights * (of_weights - (weights * of_weights).sum(-1, keepdims=True))
    dq = np.einsum("bhqk,bkhc->bqhc", of_logits, key) * scale
    dk = np.einsum("bhqk,bqhc->bkhc", of_logits, query) * scale
    dv = np.einsum("bhqk,bqhc->bkhc", weights, gradient)
    dk, dv = (x.reshape(*x.shape[:2], -1, shared, x.shape[-1]).sum(3) for x in (dk, dv))
    return mixed, dq, dk, dv, of_logits.sum(0, keepdims=True)


def error(found, wanted):
    return np.linalg.norm(np.asarray(found, np.float64) - wanted) / np.linalg.norm(wanted)


def draw(seed, *shape, dtype=jnp.bfloat16):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


@pytest.mark.parametrize(
    ("tokens", "heads", "channels", "packed", "bias"),
    [(21, 2, 64, True, True), (17, 8, 80, True, False), (19, 4, 32, False, False), (320, 1, 128, True, True)],
)
@pytest.mark.parametrize(
    ("dtype", "bound"), [(jnp.bfloat16, HALF), (jnp.float32, SINGLE)], ids=["bf16", "f32"]
)
def test_the_kernel_and_its_gradients_match_float64(tokens, heads, channels, packed, bias, dtype, bound):
    batch, width = 2, heads * channels
    sizes, shape = Sizes(batch, tokens, heads, channels), (batch, tokens, heads, channels)
    qkv, gradient = draw(0, batch, tokens, 3 * width, dtype=dtype), draw(1, batch, tokens, width, dtype=dtype)
    addend = draw(2, 3 * width, dtype=dtype) / 2 if bias else None
    inputs = [qkv] if packed else jnp.split(qkv, 3, -1)
    found = attention_kernel.forward(sizes, inputs, addend, interpret=True)
    gradients, of_bias = attention_kernel.backward(sizes, inputs, addend, gradient, interpret=True)
    total = np.asarray(qkv, np.float64) + (0 if addend is None else np.asarray(addend, np.float64))
    parts = [x.reshape(shape) for x in np.split(total, 3, -1)]
    wanted, *slopes, _ = exact(*parts, gradient=gradient.reshape(shape))
    slopes = np.concatenate([x.reshape(batch, tokens, width) for x in slopes], -1)
    assert error(found, wanted.reshape(found.shape)) < bound
    assert error(jnp.concatenate(gradients, -1), slopes) < bound
    if of_bias is not None:
        assert error(of_bias, slopes.sum((0, 1))) < bound


@pytest.mark.parametrize("halves", [True, False])
@pytest.mark.parametrize(("tokens", "heads", "channels"), [(21, 2, 64), (19, 4, 32), (320, 1, 128)])
def test_the_kernel_rotates_queries_and_keys(halves, tokens, heads, channels):
    width = heads * channels
    angles = jnp.asarray(np.random.default_rng(3).normal(size=(tokens, channels // 2)), jnp.float32)
    rotation = Rotation(jnp.sin(angles), jnp.cos(angles), halves)
    sizes = Sizes(2, tokens, heads, channels, rotation.distance)
    qkv, bias, gradient = (
        draw(seed, *shape, dtype=jnp.float32)
        for seed, shape in enumerate(((2, tokens, 3 * width), (3 * width,), (2, tokens, width)))
    )

    def plain(qkv, bias):
        query, key, value = jnp.split((qkv + bias).reshape(2, tokens, 3 * heads, channels), 3, 2)
        return plain_attention(rotation(query), rotation(key), value).reshape(gradient.shape)

    with jax.default_matmul_precision("highest"):
        wanted, vjp = jax.vjp(plain, qkv, bias)
        slopes, of_bias = vjp(gradient)
    table = rotation.table(sizes.lanes)
    assert error(attention_kernel.forward(sizes, [qkv], bias, table, interpret=True), wanted) < 2 * SINGLE
    (found,), of_both = attention_kernel.backward(sizes, [qkv], bias, gradient, table, interpret=True)
    assert error(found, slopes) < 2 * SINGLE
    assert error(of_both, of_bias) < 2 * SINGLE
    again = Rotation.of_table(table, channels, rotation.distance)
    np.testing.assert_array_equal(again(qkv[..., None, :channels]), rotation(qkv[..., None, :channels]))


@pytest.mark.parametrize("key_heads", [4, 1])
@pytest.mark.parametrize("with_bias", [True, False], ids=["bias", "no bias"])
def test_half_attention_and_its_gradients_match_float64(key_heads, with_bias):
    query, gradient = draw(0, 2, 9, 4, 16), draw(1, 2, 9, 4, 16)
    key, value = draw(2, 2, 7, key_heads, 16), draw(3, 2, 7, key_heads, 16)
    bias = draw(4, 1, 4, 9, 7) if with_bias else None
    arrays = (query, key, value) if bias is None else (query, key, value, bias)
    found, vjp = jax.vjp(half_attention, *arrays)
    wanted = exact(query, key, value, bias, gradient)
    for each, other in zip((found, *vjp(gradient)), wanted, strict=False):
        assert error(each, other) < 2 * HALF


def test_the_softmax_keeps_its_result_alone():
    logits, gradient = draw(0, 3, 40), draw(1, 3, 40)
    found, vjp = jax.vjp(softmax, logits)
    weights = np.exp(np.asarray(logits, np.float64))
    weights /= weights.sum(-1, keepdims=True)
    product = weights * np.asarray(gradient, np.float64)
    assert error(found, weights) < HALF
    assert error(vjp(gradient)[0], product - weights * product.sum(-1, keepdims=True)) < HALF
    assert [(x.shape, x.dtype) for x in jax.tree.leaves(vjp)] == [(logits.shape, logits.dtype)]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_on_a_cpu_the_attention_is_the_plain_one(dtype):
    qkv, bias = draw(0, 2, 100, 3 * 128, dtype=dtype), draw(1, 3 * 128, dtype=dtype)
    parts = (qkv + bias).reshape(2, 100, 3, 2, 64)
    parts = [parts[:, :, index] for index in range(3)]
    wanted = plain_attention(*parts)
    np.testing.assert_array_equal(attend(*parts), wanted)
    np.testing.assert_array_equal(attend_packed(qkv, 2, bias), wanted.reshape(2, 100, 128))


def test_gradients_on_a_cpu_are_those_of_the_plain_attention():
    parts, gradient = [draw(seed, 1, 100, 2, 64) for seed in range(3)], draw(4, 1, 100, 2, 64)

    @functools.partial(jax.jit, static_argnums=0)
    def gradients(function):
        return jax.vjp(function, *parts)[1](gradient)

    for found, wanted in zip(gradients(attend), gradients(plain_attention), strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_the_attention_counts_once():
    qkv = jax.ShapeDtypeStruct((2, 100, 3 * 128), jnp.bfloat16)
    assert multiply_adds(lambda x: attend_packed(x, 2), qkv) == 2 * 2 * 100 * 100 * 128


@pytest.mark.parametrize(
    ("sizes", "fits"),
    [
        (Sizes(32, 197, 12, 64), True),
        (Sizes(1, 1025, 16, 64), True),
        (Sizes(8, 257, 16, 80), True),
        (Sizes(32, 197, 3, 64), False),  # a width of 192, which no tiles of 128 lanes divide
        (Sizes(32, 50, 12, 64), False),
        (Sizes(1, 4097, 16, 64), False),
        (Sizes(8, 577, 16, 72), False),  # 16 heads a program, which need too much memory
    ],
)
def test_the_kernel_is_for_short_sequences_whose_heads_fill_tiles(sizes, fits):
    assert sizes.fits == fits


@pytest.mark.parametrize("rotated", [True, False])
@pytest.mark.parametrize("mapped", [True, False])
def test_programs_for_a_tpu_have_the_kernel_where_xla_does_not_partition_them(mapped, rotated):
    mesh = jax.sharding.AbstractMesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = jax.sharding.PartitionSpec("data")

    def both(qkv):
        rotation = Rotation(jnp.zeros((100, 32)), jnp.ones((100, 32)), True) if rotated else None
        found, vjp = jax.vjp(lambda qkv: attend_packed(qkv, 2, None, rotation), qkv)
        return vjp(found)

    def step(qkv):
        options = {"mesh": mesh, "in_specs": rows, "out_specs": rows, "check_vma": False}
        return jax.shard_map(both, **options)(qkv) if mapped else both(qkv)

    qkv = jax.ShapeDtypeStruct((4, 100, 3 * 128), jnp.bfloat16)
    traced = jax.jit(step, in_shardings=jax.sharding.NamedSharding(mesh, rows)).trace(qkv)
    text = traced.lower(lowering_platforms=("tpu",)).as_text()
    assert text.count("tpu_custom_call") == (2 if mapped else 0)


@pytest.mark.parametrize("halves", [None, True, False])
def test_plain_functions_of_the_kernel_work_where_xla_partitions_programs(halves):
    qkv, gradient = draw(0, 2, 9, 96), draw(1, 2, 9, 32)
    rotation, distance, table = None, 0, None
    if halves is not None:
        angles = jnp.linspace(0, 3, 9 * 8).reshape(9, 8)
        rotation = Rotation(jnp.sin(angles), jnp.cos(angles), halves)
        distance, table = rotation.distance, rotation.table(32)
    leaves, tree = jax.tree.flatten(_Arrays((qkv,), None, table))
    static = Sizes(2, 9, 2, 16, distance), tree
    (found,) = _FORWARD(static, *leaves)
    query, key, value = (x.reshape(2, 9, 2, 16).astype(jnp.float32) for x in jnp.split(qkv, 3, -1))

    def plain(query, key, value):
        if rotation is not None:
            query, key = rotation(query), rotation(key)
        return plain_attention(query, key, value).reshape(found.shape)

    wanted, vjp = jax.vjp(plain, query, key, value)
    assert error(found, wanted) < 2 * HALF
    (of_qkv,) = _BACKWARD(static, gradient, *leaves)
    slopes = [x.reshape(2, 9, 32) for x in vjp(gradient.astype(jnp.float32))]
    assert error(of_qkv, jnp.concatenate(slopes, -1)) < 2 * HALF
    (each,) = jax.vmap(lambda x: _FORWARD(static, x, *leaves[1:]))(qkv[None])
    np.testing.assert_array_equal(each[0], found)
