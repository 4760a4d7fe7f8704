import jax
import numpy as np
import pytest

from transfer_jax.tasks import SingleLabel
from transfer_jax.tasks.top_predictions import TopPredictions, top_of_logits

CLASSES = tuple(f"class {place}" for place in range(60))


@pytest.fixture
def logits_and_labels():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 58, 300).astype(np.int32)  # The last two classes have no example.
    logits = rng.normal(size=(300, 60)).astype(np.float32)
    logits[np.arange(300), labels] += 2
    return logits, labels


def test_their_scores_are_those_of_all_probabilities(logits_and_labels):
    logits, labels = logits_and_labels
    task, weights = SingleLabel(CLASSES), np.linspace(1, 2, 300)
    probabilities = task.predictions(logits)
    top = TopPredictions(**jax.device_get(jax.jit(top_of_logits)(logits, labels)))
    whole, found = task.scores(probabilities, labels, weights), task.scores(top, labels, weights)
    assert "confusion" not in whole
    assert found.pop("log_loss") == pytest.approx(whole.pop("log_loss"), rel=1e-5)
    assert found == {**whole, "roc_auc": None}
    assert 0.3 < found["accuracy"] < found["top5_accuracy"] < 1
    assert task.worst(top, labels) == task.worst(probabilities, labels)
    assert task.answers(top) == task.answers(probabilities)
    assert task.confidences(top) == task.confidences(probabilities)
    assert task.error(top[7], labels[7]) == pytest.approx(task.error(probabilities[7], labels[7]), abs=2e-6)


def test_those_of_probabilities_are_those_of_logits(logits_and_labels):
    logits, labels = logits_and_labels
    found = TopPredictions.of(SingleLabel(CLASSES).predictions(logits), labels)
    known = TopPredictions(**jax.device_get(jax.jit(top_of_logits)(logits, labels)))
    np.testing.assert_array_equal(found.classes, known.classes)
    np.testing.assert_allclose(found.probabilities, known.probabilities, rtol=1e-5)
    np.testing.assert_allclose(found.log_truth, known.log_truth, rtol=1e-5)
    joined = TopPredictions.join([found[:100], found[100:]])
    np.testing.assert_array_equal(joined.classes, found.classes)
    assert len(joined) == 300


def test_few_classes_and_certain_ones():
    logits = np.array([[0, 200], [200, 0]], np.float32)
    top = TopPredictions(**jax.device_get(jax.jit(top_of_logits)(logits, np.array([1, 1]))))
    assert top.classes.tolist() == [[1, 0], [0, 1]]
    # The loss is limited, as that of probabilities is.
    assert SingleLabel(("a", "b")).scores(top, np.array([1, 1], np.int32))["log_loss"] == pytest.approx(
        -np.log(np.finfo(np.float64).eps) / 2
    )


def test_roc_auc_is_for_at_most_a_hundred_classes():
    labels, equal = np.arange(101, dtype=np.int32), np.full((101, 101), 1 / 101)
    assert SingleLabel(tuple(map(str, range(101)))).scores(equal, labels)["roc_auc"] is None
    assert SingleLabel(tuple(map(str, range(100)))).scores(equal[:100, :100], labels[:100])["roc_auc"] == 0.5
