import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from transfer_jax.freezing import Phase
from transfer_jax.training.optimizer import make_optimizer
from transfer_jax.training.state import TrainState, carry, named_leaves, restore_leaves

TRAINABLE = {"head/classifier/kernel": jnp.ones((2, 3)), "head/classifier/bias": jnp.zeros(3)}
STATS = {"backbone/top/norm/mean": jnp.full(4, 2.0)}
ADAM = optax.adam(1e-3)


def test_the_arrays_are_copies():
    state = TrainState.create(TRAINABLE, ADAM, STATS, ema=True)
    jax.jit(lambda state: jax.tree.map(lambda x: x + 1, state), donate_argnums=0)(state)
    assert state.step.is_deleted()
    for array in (*TRAINABLE.values(), *STATS.values()):
        assert not array.is_deleted()


def test_arrays_that_the_optimizer_keeps_are_copied():
    def keep(params):
        return params, params, jnp.zeros(0)

    optimizer = optax.GradientTransformation(keep, lambda updates, state, params=None: (updates, state))
    state = TrainState.create(TRAINABLE, optimizer)
    after = jax.jit(lambda state: jax.tree.map(lambda x: x + 1, state), donate_argnums=0)(state)
    assert not any(array.is_deleted() for array in TRAINABLE.values())
    again = restore_leaves(TrainState.create(TRAINABLE, optimizer), named_leaves(after))
    jax.tree.map(np.testing.assert_array_equal, again, after)


@pytest.mark.parametrize("ema", [False, True])
def test_evaluation_uses_the_moving_average_where_there_is_one(ema):
    state = TrainState.create(TRAINABLE, ADAM, STATS, ema=ema)
    assert (state.ema is not None) == ema
    moved = TrainState(
        state.step, {k: v + 5 for k, v in TRAINABLE.items()}, STATS, state.opt_state, state.ema, state.seed
    )
    found = moved.averaged()
    assert set(found) == {*TRAINABLE}
    for path, array in TRAINABLE.items():
        np.testing.assert_array_equal(found[path], array if ema else array + 5)


def test_named_leaves_are_unique_and_can_be_restored():
    template = TrainState.create(TRAINABLE, ADAM, STATS, ema=True)
    state = jax.tree.map(lambda x: x + 1, template)
    leaves = named_leaves(state)
    assert len(leaves) == len(jax.tree.leaves(state)) == 1 + 2 + 1 + (1 + 2 * 2) + 2 + 1
    again = restore_leaves(template, dict(reversed(leaves.items())))
    assert jax.tree.structure(again) == jax.tree.structure(state)
    for left, right in zip(jax.tree.leaves(again), jax.tree.leaves(state), strict=True):
        np.testing.assert_array_equal(left, right)


def test_leaves_of_another_state_are_refused():
    leaves = named_leaves(TrainState.create(TRAINABLE, optax.sgd(1e-3), STATS, ema=False))
    with pytest.raises(KeyError, match="opt_state"):
        restore_leaves(TrainState.create(TRAINABLE, ADAM, STATS, ema=False), leaves)


def state_of(paths: list[str], *, value: float = 0.0, ema: bool = True, **changes) -> TrainState:
    """Returns a state of AdamW after `value` steps."""
    phase = Phase(name="p", train="all_()", epochs=1, learning_rate=1.0, **changes)
    arrays = {path: jnp.ones((2, 3)) for path in paths}
    optimizer = make_optimizer(phase, {path: path.split("/")[-2] for path in paths})
    state = TrainState.create(arrays, optimizer, ema=ema)
    return jax.tree.map(lambda leaf: leaf + jnp.asarray(value, leaf.dtype), state)


A, B, C = "backbone/a/kernel", "backbone/b/kernel", "backbone/b/bias"


@pytest.mark.parametrize(
    ("before", "now", "kept"),
    [
        ([B], [B], {B}),
        ([B], [A, B], {B}),  # a block is unfrozen
        ([A, B], [B], {B}),  # and frozen again
        ([B], [B, C], set()),  # More parameters of a block train, so its moments start again.
        ([B, C], [B], {B}),
        ([A], [B], set()),
    ],
)
@pytest.mark.parametrize("moments", [True, False])
def test_blocks_that_keep_their_moments(before, now, kept, moments):
    earlier, fresh = state_of(before, value=7.0), state_of(now)
    found = carry(earlier, fresh, moments=moments)
    assert int(found.step) == 0
    adam = found.opt_state[1].inner_states
    for path in now:
        goes_on = moments and path in kept
        state = adam[path.split("/")[1]].inner_state[0]
        np.testing.assert_array_equal(state.mu[path], 7.0 * goes_on)
        np.testing.assert_array_equal(state.nu[path], 7.0 * goes_on)
        assert int(state.count) == 7 * goes_on
        np.testing.assert_array_equal(found.trainable[path], 1.0)
        # Every moving average is kept.
        np.testing.assert_array_equal(found.ema[path], 8.0 if path in before else 1.0)


def test_clipping_in_one_phase_only_loses_no_moments():
    earlier = state_of([A], value=3.0, clip_norm=1.0, weight_decay=0.1)
    found = carry(earlier, state_of([A]), moments=True)
    np.testing.assert_array_equal(found.opt_state[1].inner_states["a"].inner_state[0].mu[A], 3.0)
