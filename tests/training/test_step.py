from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from transfer_jax.freezing import combine, multi_transform, partition, split_frozen
from transfer_jax.training import TrainState, make_train_step

BATCH = {
    "x": jax.random.normal(jax.random.key(0), (6, 12)),
    "y": jax.random.normal(jax.random.key(1), (6, 2)),
}
SIZES = (12, 8, 4, 2)
DICT = {
    name: {
        "kernel": jax.random.normal(jax.random.key(index), SIZES[index : index + 2]),
        "bias": jnp.zeros(size),
    }
    for index, (name, size) in enumerate(zip(("body", "top", "head"), SIZES[1:], strict=True))
}
LIST = [*DICT.values()]
LABELS = {name: dict.fromkeys(("kernel", "bias"), name if name != "body" else "frozen") for name in DICT}


@jax.custom_vjp
def without_gradient(x):
    return x


def backward(residuals, cotangent):
    raise AssertionError("the frozen part is differentiated")


without_gradient.defvjp(lambda x: (x, None), backward)


def network(params, state, batch, key):
    """Returns the outputs of a network with a mean that moves, and dropout before the head."""
    layers = params if isinstance(params, list) else [params[name] for name in ("body", "top", "head")]
    x = without_gradient(jnp.tanh(batch["x"] @ layers[0]["kernel"] + layers[0]["bias"]))
    x = jnp.tanh(x @ layers[1]["kernel"] + layers[1]["bias"])
    mean = 0.9 * state["mean"] + 0.1 * x.mean(0)
    x = jnp.where(jax.random.bernoulli(key, 0.5, x.shape), x - mean, 0.0)
    return x @ layers[2]["kernel"] + layers[2]["bias"], {"mean": mean}


def loss(outputs, batch):
    error = jnp.square(outputs - batch["y"]).mean()
    return error, {"largest": jnp.abs(outputs).max()}


def start(params, labels, optimizer, **options):
    trainable, frozen = partition(params, labels)
    return TrainState.create(trainable, optimizer, {"mean": jnp.zeros(4)}, **options), frozen


@pytest.mark.parametrize(
    ("params", "labels"), [(DICT, LABELS), (LIST, [*LABELS.values()])], ids=["dict", "list"]
)
def test_step_of_a_split_is_that_of_the_whole_function(params, labels):
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-2, weight_decay=0.1))
    state, frozen = start(params, labels, optimizer)
    split = split_frozen(network, params, labels, BATCH, key=jax.random.key(0), state=state.model_state)
    features = split.prefix(frozen, BATCH, state.model_state)
    assert [each.shape for each in split.features.values()] == [(8,)]
    steps = [(split, features), (network, {})]
    states = []
    for model, inputs in steps:
        step, moved, metrics = jax.jit(make_train_step(loss, optimizer, model)), state, {}
        for _ in range(3):
            moved, metrics = step(moved, frozen, inputs, BATCH)
        assert set(metrics) == {"loss", "largest", "grad_norm"}
        states.append(moved)
    for one, other in zip(*map(jax.tree.leaves, states), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    assert int(states[0].step) == 3
    changed = jax.tree.map(lambda old, new: bool(jnp.any(old != new)), state.trainable, states[0].trainable)
    assert all(jax.tree.leaves(changed))
    assert jnp.any(states[0].model_state["mean"] != 0)


def test_step_takes_the_gradients_of_the_trainable_part():
    optimizer = optax.sgd(1.0)
    state, frozen = start(DICT, LABELS, optimizer, seed=3)
    after, metrics = make_train_step(loss, optimizer, network)(state, frozen, {}, BATCH)
    key = jax.random.fold_in(jax.random.key(3), 0)

    def value(trainable):
        outputs, model_state = network(combine(trainable, frozen), state.model_state, BATCH, key)
        return loss(outputs, BATCH)[0], model_state

    (expected, model_state), grads = jax.value_and_grad(value, has_aux=True)(state.trainable)
    assert metrics["loss"] == expected
    assert metrics["grad_norm"] == pytest.approx(optax.tree.norm(grads))
    np.testing.assert_array_equal(after.model_state["mean"], model_state["mean"])
    for path in ("top", "head"):
        np.testing.assert_allclose(
            after.trainable[path]["kernel"],
            state.trainable[path]["kernel"] - grads[path]["kernel"],
            rtol=1e-6,
        )
    again, _ = make_train_step(loss, optimizer, network)(after, frozen, {}, BATCH)
    other, _ = make_train_step(loss, optimizer, network)(
        TrainState(after.step + 1, *(getattr(after, name) for name in FIELDS)), frozen, {}, BATCH
    )
    assert jnp.any(again.trainable["head"]["kernel"] != other.trainable["head"]["kernel"])


FIELDS = ("trainable", "model_state", "opt_state", "ema", "seed")


def mean_error(outputs, batch):
    return jnp.square(outputs - batch["y"]).mean()


def plain(params, state, batch, key):
    del state, key
    return jnp.tanh(batch["x"] @ params["body"]) @ params["head"]


PLAIN = {"body": DICT["body"]["kernel"], "head": jnp.ones((8, 2))}
HEAD = {"body": "frozen", "head": "head"}


def test_parts_of_a_batch_are_averaged():
    optimizer = optax.adam(1e-2)
    trainable, frozen = partition(PLAIN, HEAD)
    state = TrainState.create(trainable, optimizer, ema=True)
    whole, parts = (
        make_train_step(mean_error, optimizer, plain, accumulate=count, ema_decay=0.9)(
            state, frozen, {}, BATCH
        )
        for count in (1, 3)
    )
    for one, other in zip(*map(jax.tree.leaves, (whole, parts)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)
    expected = 0.9 * state.trainable["head"] + 0.1 * whole[0].trainable["head"]
    np.testing.assert_allclose(whole[0].ema["head"], expected, rtol=1e-6)
    with pytest.raises(ValueError, match="a batch of 6 examples is not divisible by accumulate=4"):
        make_train_step(mean_error, optimizer, plain, accumulate=4)(state, frozen, {}, BATCH)


def test_optimizer_receives_rates_and_the_value_of_the_loss():
    def update(updates, state, params=None, *, rates, value):
        return jax.tree.map(lambda update: -rates * value * update, updates), state

    init: Any = lambda params: optax.EmptyState()  # noqa: E731
    changed: Any = update
    scaled = optax.GradientTransformationExtraArgs(init, changed)
    trainable, frozen = partition(PLAIN, HEAD)
    found = {}
    for name, optimizer, rates in (("plain", optax.sgd(1.0), None), ("scaled", scaled, 0.5)):
        blocks = multi_transform({"head": optimizer}, HEAD)
        state = TrainState.create(trainable, blocks)
        after, metrics = make_train_step(mean_error, blocks, plain)(state, frozen, {}, BATCH, rates)
        found[name] = after.trainable["head"] - trainable["head"]
    np.testing.assert_allclose(found["scaled"], 0.5 * metrics["loss"] * found["plain"], rtol=1e-5)
