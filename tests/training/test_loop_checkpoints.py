import json
import logging
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from transfer_jax.freezing import leaves_by_path, multi_transform
from transfer_jax.training import LoopCheckpoints, next_phase

PARAMS = {name: {"kernel": jnp.full((2, 3), index + 1.0)} for index, name in enumerate("abc")}
LABELS = [
    {name: {"kernel": name if name in chosen else "frozen"} for name in "abc"} for chosen in ("c", "b", "b")
]


def phase_of(number, state=None, frozen=PARAMS):
    """Returns the start of a phase of the schedule c, b, b."""
    labels = LABELS[number]
    optimizer = multi_transform(dict.fromkeys("abc", optax.adam(0.1)), labels)
    model_state = {"mean": jnp.ones(2, jnp.bfloat16), "key": jax.random.key(3)}
    return next_phase(state, frozen, labels, optimizer, model_state=model_state, ema=True)


def moved(state):
    """Returns a state as after some steps."""

    def move(leaf):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.fold_in(leaf, 1)
        return leaf + jnp.asarray(7, leaf.dtype)

    return jax.tree.map(move, state)


def assert_equal(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for left, right in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert left.dtype == right.dtype
        if jnp.issubdtype(left.dtype, jax.dtypes.prng_key):
            left, right = jax.random.key_data(left), jax.random.key_data(right)
        np.testing.assert_array_equal(left, right)


def copy(tree):
    """Returns the same numbers as other arrays, as a new process reads them."""
    return jax.tree.map(jnp.copy, tree)


class Numbers:
    """An iterator with a position, as those of grain."""

    def __init__(self):
        self.position = 0

    def __next__(self):
        self.position += 1
        return self.position

    def get_state(self):
        return {"next": self.position}

    def set_state(self, state):
        self.position = state["next"]


def test_new_directory_starts_at_the_first_phase(tmp_path):
    checkpoints = LoopCheckpoints(tmp_path / "run", PARAMS)
    assert (checkpoints.phase, checkpoints.steps, checkpoints.data) == (0, 0, None)
    assert [*checkpoints.remaining("cb")] == [(0, "c"), (1, "b")]
    start = phase_of(0)
    assert_equal(checkpoints.restore(*start), start)


def test_loop_resumes_in_a_later_phase(tmp_path):
    checkpoints, data = LoopCheckpoints(tmp_path, PARAMS), Numbers()
    state, frozen = phase_of(0)
    state = moved(state)
    checkpoints.save(state, frozen)
    state, frozen = phase_of(1, state, frozen)
    state, _ = moved(state), next(data)
    checkpoints.save(state, frozen, 1, data)

    again, params, position = LoopCheckpoints(tmp_path, copy(PARAMS)), copy(PARAMS), Numbers()
    assert (again.phase, again.steps, again.data) == (1, 7, {"next": 1})
    assert [*again.remaining("cbb")] == [(1, "b"), (2, "b")]
    found = again.restore(*phase_of(1, None, params), 1)
    assert_equal(found, (state, frozen))
    assert again.restore_data(position, 1) is position
    assert next(position) == 2
    assert found[1]["a"]["kernel"] is params["a"]["kernel"]

    # The next phase is at its start; it has the parameters of both phases before.
    start = phase_of(2, *found)
    assert_equal(again.restore(*start, 2), start)
    assert next(again.restore_data(Numbers(), 2)) == 1
    again.save(moved(start[0]), start[1], 2)
    last = LoopCheckpoints(tmp_path, copy(PARAMS))
    assert_equal(last.restore(*phase_of(2), 2), (moved(start[0]), start[1]))


def test_only_trained_parameters_are_stored(tmp_path):
    checkpoints = LoopCheckpoints(tmp_path, PARAMS)
    state, frozen = phase_of(0)
    checkpoints.save(state, frozen)
    assert checkpoints._checkpoints.names(1, "frozen") == set()
    state, frozen = phase_of(1, moved(state), frozen)
    checkpoints.save(state, frozen, 1)
    assert checkpoints._checkpoints.names(2, "frozen") == {"c/kernel"}
    names = checkpoints._checkpoints.names(2, "state")
    assert {name for name in names if name.startswith(".trainable")} == {".trainable['b']['kernel']"}


@pytest.mark.parametrize("position", [{"next": [1, None]}, "a", b"\x00\xff", 3, None], ids=repr)
def test_positions_in_the_data(tmp_path, position):
    LoopCheckpoints(tmp_path, PARAMS).save(*phase_of(0), 0, position)
    assert LoopCheckpoints(tmp_path, PARAMS).data == position


def test_other_positions_raise(tmp_path):
    with pytest.raises(TypeError, match="the position in the data is of type SimpleNamespace"):
        LoopCheckpoints(tmp_path, PARAMS).save(*phase_of(0), 0, SimpleNamespace())
    assert LoopCheckpoints(tmp_path, PARAMS).phase == 0


def test_damaged_checkpoint_is_ignored(tmp_path, caplog):
    checkpoints = LoopCheckpoints(tmp_path, PARAMS)
    state, frozen = phase_of(0)
    checkpoints.save(state, frozen, 0, 1)
    checkpoints.save(moved(state), frozen, 0, 2)
    record = tmp_path / "records/2.json"
    content = json.loads(record.read_text())
    content["progress"]["data"] = {"json": 5}
    record.write_text(json.dumps(content))
    with caplog.at_level(logging.WARNING):
        again = LoopCheckpoints(tmp_path, PARAMS)
    assert again.data == 1
    assert "ignoring checkpoint 2" in caplog.text
    assert_equal(again.restore(*phase_of(0)), (state, frozen))
    again.save(moved(state), frozen, 0, 3)
    assert LoopCheckpoints(tmp_path, PARAMS).data == 3


def test_wrong_use_raises(tmp_path):
    checkpoints = LoopCheckpoints(tmp_path, PARAMS)
    state, frozen = phase_of(1, *phase_of(0))
    checkpoints.save(state, frozen, 1)
    with pytest.raises(ValueError, match="the checkpoint is of phase 1; skip phase 0"):
        checkpoints.restore(*phase_of(0), 0)
    with pytest.raises(
        ValueError, match=r"1 parameters that earlier phases changed are not frozen, .*'c/kernel'"
    ):
        checkpoints.restore(*phase_of(0), 1)
    labels = LABELS[1]
    other, rest = next_phase(None, PARAMS, labels, optax.sgd(0.1), model_state=state.model_state)
    with pytest.raises(ValueError, match="has other parameters or another optimizer than this phase"):
        checkpoints.restore(other, rest, 1)
    with pytest.raises(ValueError, match="started with other parameters"):
        LoopCheckpoints(tmp_path, {**PARAMS, "a": {"kernel": jnp.zeros((2, 3))}})
    assert leaves_by_path(rest).keys() == {"a/kernel", "c/kernel"}
