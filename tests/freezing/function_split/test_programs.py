"""Splits of functions as other people write them, compared with the function itself."""

import functools
import typing

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from transfer_jax.freezing import combine, divide_layers, labels, match, partition
from transfer_jax.freezing.function_split import split_frozen
from transfer_jax.models.flax_functions import linen_function, nnx_function

WIDTH = 8
KEYS = jax.random.split(jax.random.key(0), 4)
X = jax.random.normal(KEYS[0], (4, WIDTH))
PARAMS = {
    "body": jax.random.normal(KEYS[1], (WIDTH, WIDTH)) / 3,
    "top": jax.random.normal(KEYS[2], (WIDTH, WIDTH)) / 3,
    "head": jax.random.normal(KEYS[3], (WIDTH, 3)) / 3,
}
LABELS = {"body": "frozen", "top": "top", "head": "head"}
MESH = jax.sharding.Mesh(jax.devices()[:1], ("data",))
ROWS = PartitionSpec("data")


def check(function, params=PARAMS, found=LABELS, batch=None, key=None, state=None):
    """Splits a function, compares outputs and gradients with those of the whole, and returns the split."""
    batch = {"x": X} if batch is None else batch
    split = split_frozen(function, params, found, batch, key=key, state=state)
    trainable, frozen = partition(params, found)
    features = split.prefix(frozen, batch, state)

    def suffix(part):
        return split.suffix(part, frozen, state, features, batch, key)

    def whole(part):
        return function(combine(part, frozen), state, batch, key)

    def total(outputs):
        real = [
            leaf
            for leaf in map(jnp.asarray, jax.tree.leaves(outputs))
            if jnp.issubdtype(leaf.dtype, jnp.floating)
        ]
        return sum(jnp.sin(leaf.astype(jnp.float32)).sum() for leaf in real)

    of_suffix, of_whole = (jax.grad(lambda part, f=f: total(f(part)))(trainable) for f in (suffix, whole))
    for one, other in (
        (suffix(trainable), jax.tree.map(jnp.asarray, whole(trainable))),
        (of_suffix, of_whole),
    ):
        assert jax.tree.structure(one) == jax.tree.structure(other)
        tolerance = 2e-2 if any(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(other)) else 1e-5
        for found_leaf, leaf in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
            assert found_leaf.dtype == leaf.dtype
            np.testing.assert_allclose(found_leaf, leaf, rtol=tolerance, atol=tolerance)
    return split


def of_top(layer):
    """A function with a frozen layer below one that is applied to the trainable kernel."""

    def function(params, state, batch, key):
        return layer(jnp.tanh(batch["x"] @ params["body"]), params["top"]) @ params["head"]

    return function


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def clipped(limit, x):
    return jnp.clip(x, -limit, limit)


clipped.defvjp(
    lambda limit, x: (clipped(limit, x), x), lambda limit, x, gradient: (gradient * (jnp.abs(x) < limit),)
)


def scan_of_products(x, w):
    return jax.lax.scan(lambda h, _: (jnp.tanh(h @ w), h.sum()), x, None, length=3)[0]


IN_THE_STEP = {
    "custom derivative": lambda x, w: clipped(0.5, x @ w),
    "relu": lambda x, w: jax.nn.relu(jax.nn.silu(x @ w)),
    "checkpoint": lambda x, w: jax.checkpoint(lambda x, w: jnp.sin(jnp.sin(x) @ w))(x, w),
    "checkpoint with a policy": lambda x, w: jax.checkpoint(
        lambda x, w: jnp.sin(x @ w) @ w, policy=jax.checkpoint_policies.dots_saveable
    )(x, w),
    "nested checkpoints": lambda x, w: jax.checkpoint(lambda x, w: jax.checkpoint(jnp.matmul)(jnp.sin(x), w))(
        x, w
    ),
    "cond": lambda x, w: jax.lax.cond(w[0, 0] > 0, lambda x: x @ w, lambda x: -x @ w, x),
    "cond of the examples": lambda x, w: jax.lax.cond(x.sum() > 0, lambda x: x @ w, lambda x: -x @ w, x),
    "switch": lambda x, w: jax.lax.switch(1, [lambda x: x, lambda x: x @ w], x),
    "scan": scan_of_products,
    "reverse scan": lambda x, w: jax.lax.scan(
        lambda h, k: (jnp.tanh(h @ k), None), x, jnp.stack([w, 2 * w]), reverse=True
    )[0],
    "while": lambda x, w: jax.lax.fori_loop(0, 3, lambda _, h: jnp.tanh(h @ w), x),
    "map over examples": lambda x, w: jax.lax.map(lambda one: one @ w, x),
    "contrast": lambda x, w: x @ w @ x.T @ x,
    "batch statistics": lambda x, w: (x - x.mean(0)) / x.std(0) @ w,
    "sort of the batch": lambda x, w: jnp.sort(x, 0) @ w,
    "segments of the batch": lambda x, w: jax.ops.segment_sum(x @ w, jnp.arange(len(x)) // 2, 4),
    "sharding constraint": lambda x, w: jax.lax.with_sharding_constraint(x @ w, NamedSharding(MESH, ROWS)),
    "shard_map": lambda x, w: jax.shard_map(
        lambda x, w: x @ w, mesh=MESH, in_specs=(ROWS, PartitionSpec()), out_specs=ROWS
    )(x, w),
    "low precision": lambda x, w: (x.astype(jnp.bfloat16) @ w.astype(jnp.bfloat16)).astype(jnp.float32),
    "solve": lambda x, w: jnp.linalg.solve(w @ w.T + jnp.eye(WIDTH), x.T).T,
}


@pytest.mark.parametrize("name", IN_THE_STEP)
def test_operations_of_the_trainable_part(name):
    split = check(of_top(IN_THE_STEP[name]))
    assert [each.shape for each in split.features.values()] == [(WIDTH,)]
    assert split.cost.prefix_flops == 2 * WIDTH * WIDTH


class Pair(typing.NamedTuple):
    logits: jax.Array
    rest: typing.Any


def logits(params, batch):
    return jnp.tanh(batch["x"] @ params["body"]) @ params["top"] @ params["head"]


@pytest.mark.parametrize(
    "outputs",
    [
        lambda y, x: (y, x),
        lambda y, x: {"logits": y, "nested": [x, {"of": y}]},
        lambda y, x: Pair(y, None),
        lambda y, x: (y, 1.0, jnp.arange(3)),
        lambda y, x: {"logits": y, "class": y.argmax(-1), "count": len(x)},
        lambda y, x: y.sum(),
    ],
    ids=["tuple", "dictionary", "named tuple", "constants", "integers", "scalar"],
)
def test_outputs_of_any_structure(outputs):
    check(lambda params, state, batch, key: outputs(logits(params, batch), batch["x"]))


def test_parameters_in_lists_and_tuples():
    def function(params, state, batch, key):
        (body, top), head = params
        return jnp.tanh(batch[0]["x"] @ body) @ top @ head[0]

    params = ((PARAMS["body"], PARAMS["top"]), [PARAMS["head"]])
    check(function, params, (("frozen", "top"), ["head"]), [{"x": X}])


def test_integer_parameters_and_tokens():
    def function(params, state, batch, key):
        tokens = params["table"][batch["token"]]
        return jnp.tanh(params["embedding"][tokens]).mean(1) @ params["head"]

    params = {"table": jnp.arange(6)[::-1], "embedding": PARAMS["body"], "head": PARAMS["head"]}
    batch = {"token": jax.random.randint(KEYS[0], (4, 5), 0, 6)}
    found = {"table": "frozen", "embedding": "frozen", "head": "head"}
    assert check(function, params, found, batch).inputs == ("token",)


@pytest.mark.parametrize("key", [jax.random.key(3), jax.random.PRNGKey(3)], ids=["typed", "raw"])
def test_dropout_of_the_trainable_part(key):
    def function(params, state, batch, key):
        h = jnp.tanh(batch["x"] @ params["body"])
        return h * jax.random.bernoulli(key, 0.5, h.shape) @ params["top"] @ params["head"]

    assert check(function, key=key).cost.bytes == 4 * WIDTH


def test_mixed_precision():
    def function(params, state, batch, key):
        low = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
        return jnp.tanh(batch["x"].astype(jnp.bfloat16) @ low["body"]) @ low["top"] @ low["head"]

    split = check(function)
    assert split.features["features"].dtype == "bfloat16"
    assert split.cost.bytes == 2 * WIDTH


def test_double_precision():
    with jax.enable_x64(True):
        double = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), PARAMS)
        split = check(of_top(jnp.matmul), double, batch={"x": X.astype(jnp.float64)})
        assert split.features["features"].dtype == "float64"


@pytest.mark.filterwarnings("ignore:Some donated buffers were not usable")
def test_donated_features():
    split = split_frozen(of_top(jnp.matmul), PARAMS, LABELS, {"x": X})
    trainable, frozen = partition(PARAMS, LABELS)
    features = jax.jit(split.prefix)(frozen, {"x": X})
    step = jax.jit(
        lambda part, features: split.suffix(part, frozen, None, features, {}, None), donate_argnums=(1,)
    )
    expected = of_top(jnp.matmul)(PARAMS, None, {"x": X}, None)
    np.testing.assert_allclose(step(trainable, features), expected, rtol=1e-5)


def test_split_within_a_compiled_program():
    @jax.jit
    def step(params, x):
        split = split_frozen(of_top(jnp.matmul), PARAMS, LABELS, {"x": X})
        trainable, frozen = partition(params, LABELS)
        return split.suffix(trainable, frozen, None, split.prefix(frozen, {"x": x}), {}, None)

    np.testing.assert_allclose(step(PARAMS, X), of_top(jnp.matmul)(PARAMS, None, {"x": X}, None), rtol=1e-5)


def test_rows_of_a_sharded_batch():
    split = split_frozen(of_top(jnp.matmul), PARAMS, LABELS, {"x": X})
    x = jax.device_put(X, NamedSharding(MESH, ROWS))
    features = jax.jit(split.prefix, out_shardings=NamedSharding(MESH, ROWS))(PARAMS, {"x": x})
    assert features["features"].sharding.spec == ROWS


class Stacked(nnx.Module):
    """A network whose layers are made by `nnx.vmap` and applied by `nnx.scan`."""

    def __init__(self, rngs):
        @nnx.split_rngs(splits=4)
        @nnx.vmap(in_axes=(0,), out_axes=0)
        def layers(rngs):
            return nnx.Linear(WIDTH, WIDTH, rngs=rngs)

        self.layers = layers(rngs)
        self.head = nnx.Linear(WIDTH, 3, rngs=rngs)

    def __call__(self, x):
        @nnx.scan(in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
        def forward(x, layer):
            return nnx.tanh(layer(x))

        return self.head(forward(x, self.layers))


def test_stacked_layers_of_nnx():
    function, params, state = nnx_function(Stacked(nnx.Rngs(0)), "x")
    split = check(function, params, labels(params, match("^head")), {"x": X}, state=state)
    assert split.cost.prefix_flops == 4 * 2 * WIDTH * WIDTH
    function, params = divide_layers(function, params, "layers", 3)
    split = check(function, params, labels(params, match("^head|/upper$")), {"x": X}, state=state)
    assert split.cost.prefix_flops == 3 * 2 * WIDTH * WIDTH
    assert split.cost.bytes == 4 * WIDTH


class StackedLinen(nn.Module):
    """A network whose layers are checkpointed and in a `nn.scan`."""

    @nn.compact
    def __call__(self, x):
        class Layer(nn.Module):
            @nn.compact
            def __call__(self, x, _):
                return nn.tanh(nn.Dense(WIDTH)(nn.LayerNorm()(x))), x.mean(-1)

        stack = nn.scan(
            nn.remat(Layer, prevent_cse=False),
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=4,
        )
        return nn.Dense(3, name="head")(stack(name="layers")(x, None)[0])


def test_stacked_layers_of_linen():
    module = StackedLinen()
    function, params, state = linen_function(module, module.init(KEYS[0], X), "x")
    function, params = divide_layers(function, params, "layers", 3)
    split = check(function, params, labels(params, match("^head|/upper$")), {"x": X}, state=state)
    assert split.cost.prefix_flops == 3 * 2 * WIDTH * WIDTH
    assert split.cost.bytes == 4 * WIDTH


@pytest.mark.extended
def test_equinox_module():
    equinox = pytest.importorskip("equinox")
    model = equinox.nn.MLP(WIDTH, 3, WIDTH, 3, key=KEYS[0])
    params, static = equinox.partition(model, equinox.is_inexact_array)

    def function(params, state, batch, key):
        return jax.vmap(equinox.combine(params, static))(batch["x"])

    found = labels(params, match("layers/3"))
    split = check(function, params, found, {"x": X})
    assert split.cost.bytes == 4 * WIDTH
    assert split.cost.suffix_flops == 2 * WIDTH * 3
