"""The gain in a score and its standard error."""

import numpy as np
import pytest

from transfer_jax.tasks import SingleLabel
from transfer_jax.training.clear_gain import GROUPS, gain, gain_error, is_clear, values_without_groups

TASK = SingleLabel(("a", "b", "c"))
METRICS = {metric.name: metric for metric in TASK.metrics}


def predictions(seed: int, labels: np.ndarray, noise: float) -> np.ndarray:
    outputs = np.eye(3)[labels] + noise * np.random.default_rng(seed).normal(size=(len(labels), 3))
    return TASK.predictions(outputs)


def error(name: str, images: int) -> tuple[float, np.ndarray]:
    """Returns the standard error of a gain, and the gain of each image in the probability of the truth."""
    labels = (np.arange(images) % 3).astype(np.int32)
    before, after = predictions(0, labels, 1.0), predictions(1, labels, 0.5)
    values = [values_without_groups(TASK, [METRICS[name]], each, labels)[0] for each in (after, before)]
    assert len(values[0]) == min(GROUPS, images)
    of_truth = [each[np.arange(images), labels] for each in (before, after)]
    right = [each.argmax(-1) == labels for each in (before, after)]
    each = {"log_loss": -np.log(of_truth), "accuracy": np.array(right, float)}[name]
    return gain_error(*values), each[0] - each[1]


@pytest.mark.parametrize("name", ["log_loss", "accuracy"])
def test_the_error_of_a_mean_is_the_usual_one(name):
    found, differences = error(name, 40)
    assert found == pytest.approx(differences.std(ddof=1) / 40**0.5)


def test_groups_of_images_give_about_the_same():
    found, differences = error("log_loss", 1000)
    assert found == pytest.approx(differences.std(ddof=1) / 1000**0.5, rel=0.3)


def test_the_error_of_a_score_that_is_no_mean():
    """Compares with the spread of the gain in ROC AUC over other images and predictions."""
    labels = (np.arange(120) % 3).astype(np.int32)
    gains, errors = [], []
    for seed in range(60):
        before, after = predictions(seed, labels, 1.0), predictions(1000 + seed, labels, 0.8)
        scores = [TASK.scores(each, labels)["roc_auc"] for each in (after, before)]
        gains.append(gain(METRICS["roc_auc"], *scores))
        errors.append(
            gain_error(
                *(values_without_groups(TASK, [METRICS["roc_auc"]], x, labels)[0] for x in (after, before))
            )
        )
    assert np.mean(errors) == pytest.approx(np.std(gains), rel=0.25)


@pytest.mark.parametrize(("images", "improved"), [(27, 1), (150, 1), (27, 3), (27, 4)])
def test_the_gain_of_three_images_is_not_clear(images, improved):
    labels = (np.arange(images) % 3).astype(np.int32)
    before = predictions(0, np.zeros(images, np.int32), 0.0)
    after = before.copy()
    rows = np.flatnonzero(labels > 0)[:improved]
    after[rows] = np.eye(3)[labels[rows]]
    groups = [values_without_groups(TASK, [METRICS["log_loss"]], each, labels)[0] for each in (after, before)]
    values = [TASK.scores(each, labels)["log_loss"] for each in (after, before)]
    difference, error = gain(METRICS["log_loss"], *values), gain_error(*groups)
    assert is_clear(difference, error) == (improved > 3)
    if improved == 1:
        assert difference == pytest.approx(error)


def test_the_error_is_zero_where_a_score_has_no_value():
    labels = np.array([0, 1, 1, 2, 2], np.int32)
    values = values_without_groups(TASK, [METRICS["roc_auc"]], predictions(0, labels, 1.0), labels)[0]
    assert np.isnan(values).any()
    assert gain_error(values, values) == gain_error([], values) == 0


def test_gains_are_positive_for_better_scores():
    assert gain(METRICS["log_loss"], 0.2, 0.5) == pytest.approx(0.3)
    assert gain(METRICS["accuracy"], 0.2, 0.5) == pytest.approx(-0.3)
