import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transfer_jax.training.feature_augmentation import brighten, flipped


@pytest.mark.parametrize("shape", [(4, 5, 5, 6), (4, 9, 6)])
def test_each_channel_of_each_image_is_shifted_by_a_share_of_its_range(shape):
    features = jax.random.normal(jax.random.key(0), shape)
    moved = np.asarray(brighten(jax.random.key(1), features, 0.3) - features)
    places = tuple(range(1, len(shape) - 1))
    np.testing.assert_allclose(moved.std(places), 0, atol=1e-6)
    span = np.asarray(features.max(places) - features.min(places))
    shares = moved.mean(places) / span
    assert np.abs(shares).max() <= 0.3
    assert len(np.unique(shares.round(6))) == 4 * 6
    assert shares.min() < -0.1
    assert shares.max() > 0.1


def test_pooled_features_have_the_range_of_all_their_channels():
    features = jnp.array([[0.0, 10.0], [5.0, 5.0]])
    moved = np.asarray(brighten(jax.random.key(1), features, 0.5) - features)
    assert np.abs(moved[0]).max() <= 5
    assert np.abs(moved[0]).min() > 0
    np.testing.assert_array_equal(moved[1], 0)


@pytest.mark.parametrize(("flips", "count"), [("horizontal", 2), ("both", 4), ("turns", 8)])
def test_every_symmetry_is_met(flips, count):
    one = np.arange(3 * 3 * 2, dtype=np.float32).reshape(3, 3, 2)
    turned = [np.rot90(one, quarters) for quarters in range(4)]
    symmetries = [*turned, *(each[:, ::-1] for each in turned)]
    found = np.asarray(flipped(jax.random.key(0), jnp.tile(one, (64, 1, 1, 1)), flips))
    met = {
        index for each, index in itertools.product(found, range(8)) if np.array_equal(each, symmetries[index])
    }
    assert len(np.unique(found.reshape(64, -1), axis=0)) == len(met) == count
    assert any(np.array_equal(each, one[:, ::-1]) for each in found)
