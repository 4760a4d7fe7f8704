import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transfer_jax.training.batch_augmentation import brighten, flip, mix

VALUES = jnp.array([0.0, 1.0, 10.0, 100.0])
IMAGES = jnp.broadcast_to(VALUES[:, None, None, None], (4, 32, 32, 3))
TARGETS = jnp.eye(4)  # One class per image, so that mixed targets show which images were mixed.


@pytest.mark.parametrize("shape", [(4, 5, 5, 6), (4, 9, 6)])
def test_each_channel_of_each_image_is_shifted_by_a_fraction_of_its_range(shape):
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
def test_every_symmetry_occurs(flips, count):
    one = np.arange(3 * 3 * 2, dtype=np.float32).reshape(3, 3, 2)
    turned = [np.rot90(one, quarters) for quarters in range(4)]
    symmetries = [*turned, *(each[:, ::-1] for each in turned)]
    found = np.asarray(flip(jax.random.key(0), jnp.tile(one, (64, 1, 1, 1)), flips))
    met = {
        index for each, index in itertools.product(found, range(8)) if np.array_equal(each, symmetries[index])
    }
    assert len(np.unique(found.reshape(64, -1), axis=0)) == len(met) == count
    assert any(np.array_equal(each, one[:, ::-1]) for each in found)


def test_without_mixing_nothing_changes():
    images, targets = mix(jax.random.key(0), IMAGES, TARGETS, mixup=0.0, cutmix=0.0)
    assert images is IMAGES
    assert targets is TARGETS


@pytest.mark.parametrize(("mixup", "cutmix"), [(1.0, 0.0), (0.0, 1.0), (1.0, 1.0)])
def test_targets_are_mixed_like_pixels(mixup, cutmix):
    keys = jax.random.split(jax.random.key(0), 20)
    images, targets = jax.vmap(lambda key: mix(key, IMAGES, TARGETS, mixup=mixup, cutmix=cutmix))(keys)
    np.testing.assert_allclose(targets.sum(-1), 1, rtol=1e-6)
    np.testing.assert_allclose(images.mean((2, 3, 4)), targets @ VALUES, rtol=1e-4)
    whole = np.array([np.isin(batch, VALUES).all() for batch in images])  # pixels of either image, unmixed
    if mixup and cutmix:
        assert 4 < whole.sum() < 16
    else:
        assert whole.all() == (cutmix > 0)


def test_cutmix_pastes_a_box():
    images, _ = mix(jax.random.key(3), IMAGES, TARGETS, mixup=0.0, cutmix=1.0)
    foreign = np.asarray(images[..., 0] != VALUES[:, None, None])
    assert 0 < foreign.mean() < 1
    for mask in foreign[foreign.any((1, 2))]:
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        assert mask.sum() == len(rows) * len(columns)
        assert np.ptp(rows) + 1 == len(rows)
        assert np.ptp(columns) + 1 == len(columns)


def kept_weights(**mixing) -> np.ndarray:
    """Returns the weight of its own pixels in each mixed image."""
    keys = jax.random.split(jax.random.key(1), 2000)
    _, targets = jax.vmap(lambda key: mix(key, IMAGES, TARGETS, **mixing))(keys)
    own = np.asarray(targets).diagonal(axis1=1, axis2=2)
    return own[np.arange(len(own)), own.argmin(1)]


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_mixup_weights_are_beta(alpha):
    kept = kept_weights(mixup=alpha, cutmix=0.0)
    kept = kept[kept < 1]
    assert kept.mean() == pytest.approx(0.5, abs=0.03)
    assert kept.std() == pytest.approx((4 * (2 * alpha + 1)) ** -0.5, abs=0.02)  # of Beta(alpha, alpha)


def test_cutmix_weights():
    # a box of side s = sqrt(u) around a uniform centre covers s - s^2 / 4 of an axis on average:
    # E[(s - s^2 / 4)^2] = 1/2 - 1/5 + 1/48
    assert 1 - kept_weights(mixup=0.0, cutmix=1.0).mean() == pytest.approx(1 / 2 - 1 / 5 + 1 / 48, abs=0.03)
