import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transfer_jax.training.regularize import brighten, pulled


def test_the_pull_is_the_gradient_of_the_penalty():
    params = {"backbone/a/kernel": jnp.array([3.0, 1.0]), "head/kernel": jnp.array([5.0])}
    anchor = {"backbone/a/kernel": jnp.array([1.0, 1.0])}

    def penalty(params):
        moved = params["backbone/a/kernel"] - anchor["backbone/a/kernel"]
        return 0.2 / 2 * jnp.sum(moved**2) + 0.7 / 2 * jnp.sum(params["head/kernel"] ** 2)

    zero = jax.tree.map(jnp.zeros_like, params)
    found = pulled(zero, params, anchor, backbone=0.2, head=0.7)
    for path, grad in jax.grad(penalty)(params).items():
        np.testing.assert_allclose(found[path], grad)
    np.testing.assert_allclose(found["backbone/a/kernel"], [0.4, 0.0], rtol=1e-6)
    np.testing.assert_allclose(found["head/kernel"], [3.5])


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
