import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transfer_jax.models.attention import Attention, Rope
from transfer_jax.nn.initializers import NumpyRngs

SIDE, CHANNELS = 3, 8
ROPES = {
    "rows": Rope(base=10.0, grid=SIDE),
    "columns": Rope(base=10.0, grid=SIDE, offset=1.0, columns_first=True),
    "image": Rope(base=100.0, halves=True),
}


def rotated(rope: Rope, x: jax.Array, before: int) -> jax.Array:
    return rope.rotation(x.shape[1], before, CHANNELS)(x)


@pytest.mark.parametrize("rope", ROPES.values(), ids=ROPES)
def test_rotations_keep_lengths_and_the_first_tokens(rope):
    x = jax.random.normal(jax.random.key(0), (2, 2 + SIDE**2, 1, CHANNELS))
    found = rotated(rope, x, 2)
    np.testing.assert_array_equal(found[:, :2], x[:, :2])
    np.testing.assert_allclose(np.linalg.norm(found, axis=-1), np.linalg.norm(x, axis=-1), rtol=1e-5)
    assert not np.allclose(found[:, 2:], x[:, 2:])


@pytest.mark.parametrize("rope", ROPES.values(), ids=ROPES)
def test_scores_depend_on_the_distance_only(rope):
    """The same query and key at all patches: a step to the right gives the same score everywhere."""
    query, key = jax.random.normal(jax.random.key(0), (2, CHANNELS))
    tokens = (1, SIDE**2, 1, CHANNELS)
    queries, keys = (rotated(rope, jnp.broadcast_to(x, tokens), 0) for x in (query, key))
    scores = np.einsum("bqhc,bkhc->qk", queries, keys).reshape((SIDE,) * 4)
    right = [scores[row, column, row, column + 1] for row in range(SIDE) for column in range(SIDE - 1)]
    down = [scores[row, column, row + 1, column] for row in range(SIDE - 1) for column in range(SIDE)]
    np.testing.assert_allclose(right, right[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(down, down[0], rtol=1e-4, atol=1e-5)
    assert abs(right[0] - down[0]) > 1e-3


def test_the_first_coordinates_are_rows_unless_columns_come_first():
    x = jnp.ones((1, SIDE**2, 1, CHANNELS))
    for rope, axis in ((Rope(grid=SIDE), 1), (Rope(grid=SIDE, columns_first=True), 0)):
        first = np.asarray(rotated(rope, x, 0)).reshape(SIDE, SIDE, CHANNELS)[..., : CHANNELS // 2]
        np.testing.assert_allclose(first, np.broadcast_to(np.take(first, [0], axis), first.shape), rtol=1e-6)


def test_relative_biases_depend_on_the_distance_and_on_the_class_token():
    layer = Attention(CHANNELS, 2, NumpyRngs(0), bias="qv", grid=SIDE)
    table = layer.relative_position_bias_table[...]
    found = np.asarray(layer.relative_bias())
    assert found.shape == (1, 2, 1 + SIDE**2, 1 + SIDE**2)
    np.testing.assert_array_equal(found[0, :, 0, 0], table[-1])
    np.testing.assert_array_equal(found[0, :, 1:, 0], np.repeat(table[-2][:, None], SIDE**2, 1))
    np.testing.assert_array_equal(found[0, :, 0, 1:], np.repeat(table[-3][:, None], SIDE**2, 1))
    patches = found[0, :, 1:, 1:].reshape(2, SIDE, SIDE, SIDE, SIDE)
    np.testing.assert_array_equal(patches[:, 0, 0, 1, 2], patches[:, 1, 0, 2, 2])
    assert len(np.unique(patches[0])) == (2 * SIDE - 1) ** 2


def test_biases_of_queries_and_values_equal_a_joint_bias_without_that_of_keys():
    joint, apart = Attention(CHANNELS, 2, NumpyRngs(0)), Attention(CHANNELS, 2, NumpyRngs(0), bias="qv")
    draw = jax.random.normal(jax.random.key(1), (3, CHANNELS)).at[1].set(0)
    joint.qkv.bias[...] = draw.reshape(-1)  # pyright: ignore[reportOptionalSubscript]
    apart.q_bias[...], apart.v_bias[...] = draw[0], draw[2]
    x = jax.random.normal(jax.random.key(0), (2, 5, CHANNELS))
    np.testing.assert_allclose(apart(x), joint(x), rtol=1e-5, atol=1e-6)
