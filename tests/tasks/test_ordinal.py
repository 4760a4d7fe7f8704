import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics

from transfer_jax.tasks import Ordinal, task_from_json
from transfer_jax.tasks.losses import continuation_log_probabilities

TASK = Ordinal(("none", "mild", "severe"))
OUTPUTS = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
LABELS = np.random.default_rng(1).integers(0, 3, 50).astype(np.int32)


def test_probabilities_by_hand():
    above = 1 / (1 + np.exp(-OUTPUTS))
    known = np.stack([1 - above[:, 0], above[:, 0] * (1 - above[:, 1]), above[:, 0] * above[:, 1]], 1)
    np.testing.assert_allclose(TASK.predictions(OUTPUTS), known, rtol=1e-5)
    np.testing.assert_allclose(np.exp(continuation_log_probabilities(jnp.asarray(OUTPUTS))), known, rtol=1e-5)
    assert TASK.outputs == 2


def test_loss_is_the_negative_log_likelihood():
    found = TASK.loss("auto")(jnp.asarray(OUTPUTS), TASK.targets(jnp.asarray(LABELS)))
    known = -np.log(TASK.predictions(OUTPUTS)[np.arange(50), LABELS])
    np.testing.assert_allclose(found, known, rtol=1e-5)


def test_scores_are_those_of_scikit_learn():
    probabilities = TASK.predictions(OUTPUTS)
    middle = (np.cumsum(probabilities, -1)[:, :-1] < 0.5).sum(-1)
    found = TASK.scores(probabilities, LABELS)
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(LABELS, middle))
    assert found["quadratic_kappa"] == pytest.approx(
        metrics.cohen_kappa_score(LABELS, middle, weights="quadratic")
    )
    assert found["mae"] == pytest.approx(np.abs(middle - LABELS).mean())
    assert found["log_loss"] == pytest.approx(metrics.log_loss(LABELS, probabilities))
    step = TASK.step_scores(jnp.asarray(OUTPUTS), jnp.asarray(LABELS))
    assert float(step["accuracy"]) == pytest.approx(found["accuracy"])
    assert TASK.answers(probabilities) == [TASK.names[place] for place in middle]


def test_its_gradient_is_finite_far_from_the_truth():
    gradient = jax.grad(lambda x: TASK.loss("auto")(x, TASK.targets(jnp.array([2]))).sum())
    assert np.isfinite(gradient(jnp.array([[-200.0, -200.0]]))).all()


def test_it_is_stored_as_json():
    assert task_from_json(TASK.to_json()) == TASK
    assert TASK.scores(np.eye(3)[[0, 0]], np.zeros(2, np.int32))["quadratic_kappa"] is None
