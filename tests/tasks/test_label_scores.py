"""Scores of the probabilities of one label."""

import numpy as np
import pytest

from transfer_jax.tasks.label_scores import average_precision, jackknife_average_precision


@pytest.mark.parametrize("digits", [1, 6], ids=["ties", "distinct"])
@pytest.mark.parametrize("seed", range(3))
def test_jackknife_values_are_those_of_the_score_without_each_example(seed, digits):
    rng = np.random.default_rng(seed)
    positive = rng.random(40) < 0.3
    probability = np.round(rng.random(40) * 0.7 + 0.3 * positive, digits)
    whole = average_precision(positive, probability)
    without = [average_precision(np.delete(positive, i), np.delete(probability, i)) for i in range(40)]
    expected = 40 * np.array(whole, float) - 39 * np.array(without, float)
    found = jackknife_average_precision(positive, probability)
    np.testing.assert_allclose(found, expected, atol=1e-9)
    assert found.mean() == pytest.approx(whole, abs=0.05)


def test_a_single_positive_gives_the_score():
    positive, probability = np.array([False, True, False]), np.array([0.9, 0.5, 0.1])
    np.testing.assert_allclose(jackknife_average_precision(positive, probability), 0.5)
