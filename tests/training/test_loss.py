import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

from transfer_jax.training.loss import balanced_weights, cross_entropy, mix, soft_targets

VALUES = jnp.array([0.0, 1.0, 10.0, 100.0])
IMAGES = jnp.broadcast_to(VALUES[:, None, None, None], (4, 32, 32, 3))
TARGETS = jnp.eye(4)  # a class an image, so that mixed targets tell who was mixed with whom


def test_soft_targets_by_hand():
    found = soft_targets(jnp.array([2, 0]), 4, 0.1)
    np.testing.assert_allclose(found, [[0.025, 0.025, 0.925, 0.025], [0.925, 0.025, 0.025, 0.025]], rtol=1e-6)
    np.testing.assert_array_equal(soft_targets(jnp.array([1]), 2, 0.0), [[0, 1]])


def test_cross_entropy_by_hand():
    logits = jnp.log(jnp.array([[0.2, 0.8], [0.5, 0.5]]))
    targets = jnp.array([[1.0, 0.0], [0.25, 0.75]])
    plain = [-np.log(0.2), np.log(2)]
    np.testing.assert_allclose(cross_entropy(logits, targets, jnp.ones(2)), plain, rtol=1e-6)
    weighted = cross_entropy(logits, targets, jnp.array([2.0, 4.0]))
    np.testing.assert_allclose(weighted, [2 * plain[0], (0.25 * 2 + 0.75 * 4) * plain[1]], rtol=1e-6)


def test_balanced_weights_by_hand():
    labels = np.array([0, 0, 0, 1, 0, 0, 2, 2])
    weights = balanced_weights(labels, 3)
    np.testing.assert_allclose(weights, [8 / 15, 8 / 3, 8 / 6], rtol=1e-6)
    np.testing.assert_allclose(
        weights, compute_class_weight("balanced", classes=np.arange(3), y=labels), rtol=1e-6
    )


@pytest.mark.parametrize("classes", [3, 5])
def test_balanced_weights_are_one_on_average_even_with_empty_classes(classes):
    labels = np.array([0, 0, 0, 1, 0, 0, 2, 2])
    assert balanced_weights(labels, classes)[labels].mean() == pytest.approx(1)


def test_without_mixing_nothing_changes():
    images, targets = mix(jax.random.key(0), IMAGES, TARGETS, mixup=0.0, cutmix=0.0)
    assert images is IMAGES
    assert targets is TARGETS


@pytest.mark.parametrize(("mixup", "cutmix"), [(1.0, 0.0), (0.0, 1.0), (1.0, 1.0)])
def test_targets_have_the_share_that_the_pixels_have(mixup, cutmix):
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


def shares(**mixing) -> np.ndarray:
    """The share that images keep of themselves, of those mixed with another."""
    keys = jax.random.split(jax.random.key(1), 2000)
    _, targets = jax.vmap(lambda key: mix(key, IMAGES, TARGETS, **mixing))(keys)
    own = np.asarray(targets).diagonal(axis1=1, axis2=2)
    return own[np.arange(len(own)), own.argmin(1)]


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_mixup_shares_are_beta(alpha):
    kept = shares(mixup=alpha, cutmix=0.0)
    kept = kept[kept < 1]
    assert kept.mean() == pytest.approx(0.5, abs=0.03)
    assert kept.std() == pytest.approx((4 * (2 * alpha + 1)) ** -0.5, abs=0.02)  # of Beta(alpha, alpha)


def test_cutmix_shares():
    # a box of side s = sqrt(u) around a uniform centre covers s - s^2 / 4 of an axis on average:
    # E[(s - s^2 / 4)^2] = 1/2 - 1/5 + 1/48
    assert 1 - shares(mixup=0.0, cutmix=1.0).mean() == pytest.approx(1 / 2 - 1 / 5 + 1 / 48, abs=0.03)
