import numpy as np
import pytest

from transfer_jax.search.transferability import h_score, leep, log_me

RNG = np.random.default_rng(0)
LABELS = np.arange(60) % 3
NOISE = RNG.normal(size=(60, 8))
GOOD = NOISE + 2 * np.eye(3, 8)[LABELS]


def log_density(features: np.ndarray, target: np.ndarray, alpha: float, beta: float) -> float:
    """The log density of a target whose weights and noise are Gaussian, per example."""
    covariance = np.eye(len(target)) / beta + features @ features.T / alpha
    _, determinant = np.linalg.slogdet(2 * np.pi * covariance)
    return -0.5 * (determinant + target @ np.linalg.solve(covariance, target)) / len(target)


@pytest.mark.parametrize("shape", [(12, 2), (6, 20)])
def test_log_me_is_the_maximum_of_the_evidence(shape):
    features = RNG.normal(size=shape)
    target = features @ RNG.normal(size=shape[1]) + 0.3 * RNG.normal(size=shape[0])
    found = log_me(features, target)
    precisions = np.geomspace(1e-3, 1e3, 61)
    grid = [log_density(features, target, alpha, beta) for alpha in precisions for beta in precisions]
    assert max(grid) - 1e-9 <= found
    if shape[0] > shape[1]:  # Otherwise less noise is always better.
        assert found == pytest.approx(max(grid), abs=0.02)


def test_log_me_of_classes_is_the_mean_over_the_classes():
    one_by_one = [log_me(GOOD, np.where(k == LABELS, 1.0, 0.0)) for k in range(3)]
    assert log_me(GOOD, LABELS) == pytest.approx(np.mean(one_by_one))


def test_leep_by_hand():
    # P(new, former) = [[0.45, 0.05], [0.1, 0.4]], P(former) = [0.55, 0.45].
    probabilities = [[0.9, 0.1], [0.9, 0.1], [0.2, 0.8], [0.2, 0.8]]
    first = 0.45 / 0.55 * 0.9 + 0.05 / 0.45 * 0.1
    second = 0.1 / 0.55 * 0.2 + 0.4 / 0.45 * 0.8
    assert leep(probabilities, [7, 7, 9, 9]) == pytest.approx((np.log(first) + np.log(second)) / 2)
    assert leep([[1, 0], [0, 1]], [0, 1]) == 0


def test_h_score_by_hand():
    # One channel: variance 1.25, of which 1 is between the classes; nothing is shrunk.
    assert h_score([[0.5], [1.5], [-0.5], [-1.5]], [0, 0, 1, 1]) == pytest.approx(1 / 1.25)


def test_h_score_shrinks_as_scikit_learn_does():
    covariance = pytest.importorskip("sklearn.covariance")
    shrunk, shrinkage = covariance.ledoit_wolf(GOOD)
    means = np.stack([GOOD[k == LABELS].mean(0) for k in range(3)])[LABELS] - GOOD.mean(0)
    wanted = (1 - shrinkage) * np.trace(np.linalg.solve(shrunk, means.T @ means / len(means)))
    assert h_score(GOOD, LABELS) == pytest.approx(wanted)


@pytest.mark.parametrize("score", [log_me, h_score])
@pytest.mark.parametrize("channels", [8, 200])
def test_features_that_know_the_classes_are_better(score, channels):
    padding = np.random.default_rng(1).normal(size=(60, channels - 8))
    good, noise = (np.concatenate([each, padding], 1) for each in (GOOD, NOISE))
    assert score(good, LABELS) > score(noise, LABELS)


def test_equal_features_fit_nothing():
    assert h_score(np.ones((4, 3)), [0, 0, 1, 1]) == 0


@pytest.mark.parametrize("score", [log_me, leep, h_score])
def test_invalid_arrays(score):
    with pytest.raises(ValueError, match=r"the shapes \(3,\) and \(3,\)"):
        score(np.ones(3), [0, 1, 1])
    with pytest.raises(ValueError, match="no finite numbers"):
        score([[np.nan], [1.0]], [0, 1])
