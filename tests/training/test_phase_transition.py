import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from transfer_jax.freezing import combine, leaves_by_path, multi_transform
from transfer_jax.training import next_phase


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Module:
    """A module as those of Equinox."""

    first: jax.Array
    others: list


SCHEDULE = optax.linear_schedule(0.1, 0.0, 10)
PARAMS = {
    "dict": {name: {"kernel": jnp.full((2, 3), index + 1.0)} for index, name in enumerate("abc")},
    "list": [[jnp.ones((2, 3))], {"kernel": jnp.ones(3)}, jnp.zeros(())],
    "module": Module(jnp.ones((2, 3)), [jnp.ones(3), jnp.zeros(2)]),
    "nnx": nnx.state(nnx.Sequential(*(nnx.Linear(2, 2, use_bias=False, rngs=nnx.Rngs(0)) for _ in "abc"))),
}


def labelled(params, *trainable):
    """Returns labels with the trainable ones of the three leaves `a`, `b` and `c`."""
    names = iter("abc")
    chosen = [name if name in trainable else "frozen" for name in names]
    return jax.tree.unflatten(jax.tree.structure(params), chosen)


def moved(state):
    """Returns a state as after some steps."""
    return jax.tree.map(lambda leaf: leaf + jnp.asarray(7, leaf.dtype), state)


def adam(labels, **settings):
    return multi_transform(dict.fromkeys("abc", optax.adam(SCHEDULE, **settings)), labels)


def moments(state):
    """Returns Adam's moments and counter, and the counter of the schedule, of each trainable block."""
    found = {}
    for name, inner in state.opt_state.inner_states.items():
        if name != "frozen" and jax.tree.leaves(inner):
            adam, schedule = inner.inner_state
            mu = jax.tree.leaves(adam.mu)
            if mu:
                found[name] = (float(np.max(mu[0])), int(adam.count), int(schedule.count))
    return found


@pytest.mark.parametrize("kind", PARAMS)
def test_phases_of_a_tree(kind):
    params = PARAMS[kind]
    labels = labelled(params, "c")
    state, frozen = next_phase(
        None, params, labels, adam(labels), model_state={"mean": jnp.ones(2)}, ema=True
    )
    assert [state.step, state.seed] == [0, 0]
    state = moved(state)
    labels = labelled(params, "b", "c")
    state, frozen = next_phase(state, frozen, labels, adam(labels), ema=True)
    assert [state.step, state.seed] == [0, 8]
    assert moments(state) == {"b": (0, 0, 0), "c": (7, 7, 0)}
    np.testing.assert_array_equal(state.model_state["mean"], jnp.full(2, 8.0))
    before = [*leaves_by_path(params).values()]
    expected = [before[0], before[1], before[2] + 7]
    now = combine(state.trainable, frozen)
    assert jax.tree.structure(now) == jax.tree.structure(params)
    for leaf, value in zip(leaves_by_path(now).values(), expected, strict=True):
        np.testing.assert_array_equal(leaf, value)
    np.testing.assert_array_equal(jax.tree.leaves(state.ema)[0], before[1])
    np.testing.assert_array_equal(jax.tree.leaves(state.ema)[1], before[2] + 7)


@pytest.mark.parametrize(
    ("before", "now", "kept"),
    [("bc", "bc", True), ("bc", "c", True), ("c", "bc", False), ("b", "c", False)],
)
def test_without_labels_all_parameters_are_one_block(before, now, kept):
    params = PARAMS["dict"]
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(SCHEDULE))
    state, frozen = next_phase(None, params, labelled(params, *before), optimizer)
    state, _ = next_phase(moved(state), frozen, labelled(params, *now), optimizer)
    adam, _, schedule = state.opt_state[1]
    assert (int(adam.count), int(schedule.count)) == (7 if kept else 0, 0)
    for leaf in jax.tree.leaves((adam.mu, adam.nu)):
        np.testing.assert_array_equal(leaf, 7.0 if kept else 0.0)


def test_injected_learning_rate_is_that_of_the_new_phase():
    params, labels = PARAMS["dict"], labelled(PARAMS["dict"], "c")
    first, second = (optax.inject_hyperparams(optax.adam)(learning_rate=rate) for rate in (0.1, 0.01))
    state, frozen = next_phase(None, params, labels, first)
    state, _ = next_phase(moved(state), frozen, labels, second)
    assert state.opt_state.hyperparams["learning_rate"] == pytest.approx(0.01)
    assert int(state.opt_state.inner_state[0].count) == 7


def test_moments_start_again_on_request():
    params, labels = PARAMS["dict"], labelled(PARAMS["dict"], "c")
    state, frozen = next_phase(None, params, labels, adam(labels))
    state, _ = next_phase(moved(state), frozen, labels, adam(labels), moments=False, seed=5)
    assert moments(state) == {"c": (0, 0, 0)}
    assert state.seed == 5
