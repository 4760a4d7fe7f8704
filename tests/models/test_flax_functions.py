import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from transfer_jax.freezing import labels, partition, top
from transfer_jax.freezing.function_split import blocks_by_depth, split_frozen
from transfer_jax.models.flax_functions import linen_function, nnx_function

IMAGES = {"image": jax.random.normal(jax.random.key(0), (4, 8, 8, 3))}


class Linen(nn.Module):
    """A convolutional network with names that do not sort in the order of its layers."""

    @nn.compact
    def __call__(self, x, train):
        x = nn.Conv(8, (3, 3), strides=2, name="stem")(x)
        for _ in range(11):
            y = nn.relu(nn.BatchNorm(use_running_average=not train)(x))
            x = x + nn.Conv(8, (3, 3))(y)
        x = nn.Dropout(0.5, deterministic=not train)(x.mean((1, 2)))
        return nn.Dense(3, name="a_head")(x)


class Module(nnx.Module):
    def __init__(self, rngs):
        self.layers = nnx.List(
            [nnx.Linear(192, 16, rngs=rngs), *(nnx.Linear(16, 16, rngs=rngs) for _ in range(10))]
        )
        self.norm = nnx.BatchNorm(16, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.head = nnx.Linear(16, 3, rngs=rngs)

    def __call__(self, x):
        x = x.reshape(len(x), -1)
        for layer in self.layers:
            x = nnx.relu(layer(x))
        return self.head(self.drop(self.norm(x)))


def linen():
    module = Linen()
    variables = module.init(jax.random.key(1), IMAGES["image"], False)
    return linen_function(module, variables, train=False)


def module():
    model = Module(nnx.Rngs(0))
    model.eval()
    return nnx_function(model)


ORDERS = {
    linen: ["stem", *(f"{kind}_{index}" for index in range(11) for kind in ("BatchNorm", "Conv")), "a_head"],
    module: [*(f"layers/{index}" for index in range(11)), "norm", "head"],
}


@pytest.mark.parametrize("make", [linen, module])
def test_blocks_are_in_the_order_of_the_function(make):
    function, params, state = make()
    order = blocks_by_depth(function, params, IMAGES, state=state)
    assert [*dict.fromkeys(order.values())] == ORDERS[make]


@pytest.mark.parametrize("make", [linen, module])
def test_model_is_split(make):
    function, params, state = make()
    order = blocks_by_depth(function, params, IMAGES, state=state)
    found = labels(params, top(2), order)
    split = split_frozen(function, params, found, IMAGES, state=state)
    trainable, frozen = partition(params, found)
    features = split.prefix(frozen, IMAGES, state)
    logits, after = split.suffix(trainable, frozen, state, features, {}, None)
    expected, _ = function(params, state, IMAGES, None)
    np.testing.assert_array_equal(logits, expected)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert split.cost.prefix_flops > 5 * split.cost.suffix_flops


def test_frozen_statistics_that_move_raise():
    module = Linen()
    variables = module.init(jax.random.key(1), IMAGES["image"], False)
    function, params, state = linen_function(module, variables, train=True)
    found = labels(params, top(0), ORDERS[linen])
    with pytest.raises(ValueError, match="the frozen part changes the state batch_stats/BatchNorm_0/mean"):
        split_frozen(function, params, found, IMAGES, state=state, key=jax.random.key(2))


def test_statistics_of_a_trainable_normalization_may_move():
    model = Module(nnx.Rngs(0))
    model.eval()
    model.norm.train()
    function, params, state = nnx_function(model)
    split = split_frozen(function, params, labels(params, top(1), ORDERS[module]), IMAGES, state=state)
    assert split.features["features"].shape == (16,)
    with pytest.raises(ValueError, match="the frozen part changes the state norm/mean"):
        split_frozen(function, params, labels(params, top(0), ORDERS[module]), IMAGES, state=state)


def test_random_key_of_a_module():
    model = Module(nnx.Rngs(0))
    model.eval()
    model.drop.train()
    function, params, state = nnx_function(model)
    one, two, again = (function(params, state, IMAGES, jax.random.key(seed))[0] for seed in (1, 2, 1))
    np.testing.assert_array_equal(one, again)
    assert jnp.any(one != two)
    split = split_frozen(
        function, params, labels(params, top(1), ORDERS[module]), IMAGES, key=jax.random.key(1), state=state
    )
    assert split.features["features"].shape == (16,)
