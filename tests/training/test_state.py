import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from transfer_jax.training.state import TrainState, named_leaves, restore_leaves

TRAINABLE = {"head/classifier/kernel": jnp.ones((2, 3)), "head/classifier/bias": jnp.zeros(3)}
STATS = {"backbone/top/norm/mean": jnp.full(4, 2.0)}
ADAM = optax.adam(1e-3)


def test_the_arrays_are_copies():
    state = TrainState.create(TRAINABLE, STATS, ADAM, ema=True)
    jax.jit(lambda state: jax.tree.map(lambda x: x + 1, state), donate_argnums=0)(state)
    assert state.step.is_deleted()
    for array in (*TRAINABLE.values(), *STATS.values()):
        assert not array.is_deleted()


@pytest.mark.parametrize("ema", [False, True])
def test_evaluation_uses_the_moving_average_where_there_is_one(ema):
    state = TrainState.create(TRAINABLE, STATS, ADAM, ema=ema)
    assert set(state.ema) == (set(TRAINABLE) if ema else set())
    moved = TrainState(
        state.step, {k: v + 5 for k, v in TRAINABLE.items()}, STATS, state.opt_state, state.ema
    )
    found = moved.evaluated()
    assert set(found) == {*TRAINABLE, *STATS}
    for path, array in TRAINABLE.items():
        np.testing.assert_array_equal(found[path], array if ema else array + 5)


def test_leaves_have_names_of_their_own_and_come_back():
    template = TrainState.create(TRAINABLE, STATS, ADAM, ema=True)
    state = jax.tree.map(lambda x: x + 1, template)
    leaves = named_leaves(state)
    assert len(leaves) == len(jax.tree.leaves(state)) == 1 + 2 + 1 + (1 + 2 * 2) + 2
    again = restore_leaves(template, dict(reversed(leaves.items())))
    assert jax.tree.structure(again) == jax.tree.structure(state)
    for left, right in zip(jax.tree.leaves(again), jax.tree.leaves(state), strict=True):
        np.testing.assert_array_equal(left, right)


def test_leaves_of_another_state_are_refused():
    leaves = named_leaves(TrainState.create(TRAINABLE, STATS, optax.sgd(1e-3), ema=False))
    with pytest.raises(KeyError, match="opt_state"):
        restore_leaves(TrainState.create(TRAINABLE, STATS, ADAM, ema=False), leaves)
