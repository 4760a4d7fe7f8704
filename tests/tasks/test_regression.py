import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics

from transfer_jax.tasks import Regression, task_from_json

RNG = np.random.default_rng(1)
LABELS = (RNG.normal(size=(80, 2)) * [3, 100] + [5, -20]).astype(np.float32)
PREDICTIONS = LABELS + RNG.normal(size=(80, 2)) * [1, 50]
TASK = Regression(("age", "height")).fitted(LABELS)


@pytest.mark.parametrize("weights", [None, np.linspace(0.5, 2, 80)], ids=["equal", "weighted"])
def test_scores_are_those_of_scikit_learn(weights):
    found = TASK.scores(PREDICTIONS, LABELS, weights)
    options = {"sample_weight": weights}
    assert found["mae"] == pytest.approx(metrics.mean_absolute_error(LABELS, PREDICTIONS, **options))
    assert found["rmse"] == pytest.approx(metrics.root_mean_squared_error(LABELS, PREDICTIONS, **options))
    assert found["r2"] == pytest.approx(metrics.r2_score(LABELS, PREDICTIONS, **options))
    known = metrics.mean_squared_error(LABELS[:, 1], PREDICTIONS[:, 1], **options)
    assert found["per_quantity"]["height"]["rmse"] == pytest.approx(known**0.5)
    assert found["images"] == 80


def test_intervals_contain_the_truth_as_often_as_they_say():
    rng, inside = np.random.default_rng(2), {"mae": 0, "rmse": 0, "r2": 0}
    truth = {"mae": np.sqrt(2 / np.pi), "rmse": 1.0, "r2": 0.8}
    for _ in range(400):
        labels = rng.normal(size=(200, 1)) * np.sqrt(5)
        one = Regression(("x",)).scores(labels + rng.normal(size=(200, 1)), labels.astype(np.float32))
        for name, value in truth.items():
            low, high = one["per_quantity"]["x"][f"{name}_interval"]
            inside[name] += low <= value <= high
    assert all(0.91 <= count / 400 <= 0.98 for count in inside.values()), inside


def test_predictions_are_in_the_unit_of_the_labels():
    outputs = TASK.targets(jnp.asarray(LABELS))
    np.testing.assert_allclose(np.asarray(outputs).mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(np.asarray(outputs).std(0), 1, rtol=1e-5)
    np.testing.assert_allclose(TASK.predictions(np.asarray(outputs)), LABELS, rtol=1e-4, atol=1e-3)
    assert float(TASK.step_scores(outputs, jnp.asarray(LABELS))["mae"]) < 1e-3
    assert TASK.scores(np.tile(LABELS.mean(0), (80, 1)), LABELS)["standardized_mse"] == pytest.approx(
        1, rel=1e-5
    )


def test_a_constant_quantity_has_no_r2():
    task = Regression(("x",)).fitted(np.full((4, 1), 3, np.float32))
    assert task.scale == (1.0,)
    assert task.scores(np.array([[3.0], [4], [3], [3]]), np.full((4, 1), 3, np.float32))["r2"] is None


def test_label_smoothing_is_an_error():
    TASK.check_smoothing(0.0)
    with pytest.raises(ValueError, match=r"^label_smoothing must be 0 for the task regression, .* got 0\.1$"):
        TASK.check_smoothing(0.1)
    with pytest.raises(ValueError, match=r"^label_smoothings must be 0"):
        TASK.check_smoothing(0.1, "label_smoothings")


def test_strata_are_tenths_of_the_first_quantity():
    strata = TASK.strata(LABELS)
    assert sorted(np.bincount(strata)) == [10] * 8
    order = np.argsort(LABELS[:, 0])
    assert np.all(np.diff(strata[order]) >= 0)
    assert set(TASK.strata(LABELS[:7])) == {0}


def test_it_is_stored_as_json():
    assert task_from_json(TASK.to_json()) == TASK
    assert TASK.answers(np.array([[1.5, 20.25]])) == ["age 1.5, height 20.25"]
    assert Regression(("age",)).answers(np.array([[1.5]])) == ["1.5"]


def test_largest_errors_come_first():
    predictions = LABELS.astype(np.float64).copy()
    predictions[7, 0] += 3
    predictions[9, 1] += 400
    assert TASK.worst(predictions, LABELS)[:2] == [9, 7]
    assert TASK.error(predictions[7], LABELS[7]) == {"note": "off by +3, +0"}


def test_invalid_labels_raise():
    labels = LABELS.copy()
    labels[3, 1] = np.nan
    with pytest.raises(ValueError, match="labels must be finite, but that of example 3 is"):
        TASK.check(labels)
