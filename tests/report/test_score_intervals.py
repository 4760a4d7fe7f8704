import numpy as np
import pytest
from scipy.stats import binomtest

from transfer_jax.report import score_intervals as module
from transfer_jax.report.score_intervals import score_intervals
from transfer_jax.tasks import MultiLabel, Regression, SingleLabel
from transfer_jax.tasks.top_predictions import TopPredictions

RNG = np.random.default_rng(0)
CLASSES = SingleLabel(("a", "b"))
LABELS = RNG.integers(0, 2, 120).astype(np.int32)
PROBABILITIES = RNG.dirichlet((1, 1), 120) * 0.5 + np.eye(2)[LABELS] * 0.5


def test_accuracy_has_the_interval_of_wilson():
    right = int((PROBABILITIES.argmax(-1) == LABELS).sum())
    expected = binomtest(right, 120).proportion_ci(0.95, method="wilson")
    found = score_intervals(CLASSES, PROBABILITIES, LABELS)["accuracy"]
    assert found == pytest.approx((expected.low, expected.high))


def test_the_interval_of_a_mean_is_about_two_standard_errors_wide():
    losses = -np.log(PROBABILITIES[np.arange(120), LABELS])
    low, high = score_intervals(CLASSES, PROBABILITIES, LABELS)["log_loss"]
    assert low < losses.mean() < high
    assert high - low == pytest.approx(3.92 * losses.std() / 120**0.5, rel=0.15)


@pytest.mark.parametrize(
    ("task", "predictions", "labels"),
    [
        (MultiLabel(("a", "b")), RNG.random((60, 2)), RNG.integers(0, 2, (60, 2)).astype(np.uint8)),
        (Regression(("size",)), RNG.normal(size=(60, 1)), RNG.normal(size=(60, 1)).astype(np.float32)),
    ],
    ids=["multi_label", "regression"],
)
def test_all_tasks_have_intervals_around_their_scores(task, predictions, labels):
    scores, found = task.scores(predictions, labels), score_intervals(task, predictions, labels)
    assert {metric.name for metric in task.metrics} == set(found)
    for name in ("mean_average_precision", "log_loss", "mae"):
        if name in found:
            assert found[name][0] < scores[name] < found[name][1]


def test_too_many_predictions_to_resample_have_the_interval_of_the_accuracy_only(monkeypatch):
    monkeypatch.setattr(module, "_LARGEST_WORK", 100 * PROBABILITIES.size)
    assert set(score_intervals(CLASSES, PROBABILITIES, LABELS)) == {"accuracy"}


def test_of_the_most_probable_classes_only_the_accuracy_has_an_interval():
    task, labels = SingleLabel(("a", "b", "c")), np.arange(60, dtype=np.int32) % 3
    probabilities = np.random.default_rng(0).dirichlet(np.ones(3), 60)
    found = score_intervals(task, TopPredictions.of(probabilities, labels), labels)
    assert found == {"accuracy": score_intervals(task, probabilities, labels)["accuracy"]}
