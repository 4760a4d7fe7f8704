import numpy as np
import pytest

from transfer_jax.tasks.confusions import Confusions

TRUE, PREDICTED = np.array([0, 0, 0, 2, 2, 3]), np.array([0, 2, 2, 2, 0, 1])


@pytest.fixture
def confusions():
    return Confusions.of(TRUE, PREDICTED, 4)


def test_matrix_and_its_sums(confusions):
    known = np.zeros((4, 4), int)
    np.add.at(known, (TRUE, PREDICTED), 1)
    np.testing.assert_array_equal(confusions.matrix(), known)
    np.testing.assert_array_equal(confusions.present, known.sum(1))
    np.testing.assert_array_equal(confusions.given, known.sum(0))
    np.testing.assert_array_equal(confusions.right, known.diagonal())
    chosen = np.array([2, 0])
    np.testing.assert_array_equal(confusions.matrix(chosen), known[np.ix_(chosen, chosen)])


def test_errors(confusions):
    assert confusions.most_confused(2).tolist() == [0, 2]
    assert confusions.largest_errors(2) == [(0, 2, 2), (2, 0, 1)]
    assert len(confusions.largest_errors(9)) == 3


def test_many_classes_take_little_memory():
    rng = np.random.default_rng(0)
    labels, predicted = rng.integers(0, 21_843, (2, 50_000))
    found = Confusions.of(labels, predicted, 21_843)
    assert found.images.sum() == 50_000
    assert len(found.true) <= 50_000
    assert found.matrix(found.most_confused(40)).shape == (40, 40)
