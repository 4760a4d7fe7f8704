import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

from transfer_jax.training.loss import balanced_weights, soft_targets


def test_soft_targets_by_hand():
    found = soft_targets(jnp.array([2, 0]), 4, 0.1)
    np.testing.assert_allclose(found, [[0.025, 0.025, 0.925, 0.025], [0.925, 0.025, 0.025, 0.025]], rtol=1e-6)
    np.testing.assert_array_equal(soft_targets(jnp.array([1]), 2, 0.0), [[0, 1]])


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
