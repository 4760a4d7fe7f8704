import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics
from sklearn.utils.class_weight import compute_class_weight

from transfer_jax.tasks import SingleLabel

LABELS = np.array([0, 0, 0, 0, 1, 1])
PROBABILITIES = np.array([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.3, 0.7], [0.45, 0.55], [0.7, 0.3]])


def test_two_classes_by_hand():
    scores = SingleLabel(("good", "bad")).scores(PROBABILITIES, LABELS)
    assert scores["accuracy"] == pytest.approx(4 / 6)
    assert scores["balanced_accuracy"] == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert scores["confusion"] == [[3, 1], [1, 1]]
    assert scores["per_class"]["good"] == {"precision": 3 / 4, "recall": 3 / 4, "f1": 3 / 4, "images": 4}
    assert scores["per_class"]["bad"] == {"precision": 1 / 2, "recall": 1 / 2, "f1": 1 / 2, "images": 2}
    assert scores["macro_f1"] == pytest.approx(5 / 8)
    # of the 4 x 2 pairs, 0.55 beats three of the good ones and 0.3 two
    assert scores["roc_auc"] == pytest.approx(5 / 8)
    assert scores["log_loss"] == pytest.approx(-np.log([0.9, 0.8, 0.6, 0.3, 0.55, 0.3]).mean())
    assert scores["images"] == 6


def test_weighted_accuracy_by_hand():
    weights = np.array([1, 1, 1, 4, 2, 1])
    found = SingleLabel(("good", "bad")).scores(PROBABILITIES, LABELS, weights)
    assert found["weighted_accuracy"] == pytest.approx(5 / 10)
    assert found["accuracy"] == pytest.approx(4 / 6)
    assert "weighted_accuracy" not in SingleLabel(("good", "bad")).scores(PROBABILITIES, LABELS)


def test_many_classes_are_scikit_learn_s():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 60)
    probabilities = rng.dirichlet(np.ones(4), 60)
    predicted = probabilities.argmax(-1)
    scores = SingleLabel(tuple("abcd")).scores(probabilities, labels)
    assert scores["balanced_accuracy"] == pytest.approx(metrics.balanced_accuracy_score(labels, predicted))
    assert scores["macro_f1"] == pytest.approx(metrics.f1_score(labels, predicted, average="macro"))
    one_by_one = [metrics.roc_auc_score(labels == i, probabilities[:, i]) for i in range(4)]
    assert scores["roc_auc"] == pytest.approx(np.mean(one_by_one))


def test_a_class_without_images_counts_for_nothing():
    padded = np.column_stack([PROBABILITIES, np.zeros(6)])
    scores = SingleLabel(("good", "bad", "ugly")).scores(padded, LABELS)
    whole = SingleLabel(("good", "bad")).scores(PROBABILITIES, LABELS)
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "log_loss"):
        assert scores[name] == pytest.approx(whole[name])
    assert scores["roc_auc"] is None
    assert scores["per_class"]["ugly"] == {"precision": None, "recall": None, "f1": None, "images": 0}


def test_a_class_without_images_that_is_predicted_has_no_scores_either():
    probabilities = np.array([[0.8, 0.1, 0.1], [0.1, 0.1, 0.8], [0.2, 0.7, 0.1]])
    scores = SingleLabel(("good", "bad", "ugly")).scores(probabilities, np.array([0, 0, 1]))
    assert scores["per_class"]["ugly"]["precision"] is None
    assert scores["balanced_accuracy"] == pytest.approx((1 / 2 + 1) / 2)
    assert scores["macro_f1"] == pytest.approx((2 / 3 + 1) / 2)
    assert scores["confusion"][0] == [1, 0, 1]


def test_a_class_that_is_never_predicted_has_no_precision():
    scores = SingleLabel(("good", "bad")).scores(np.tile([0.9, 0.1], (6, 1)), LABELS)
    assert scores["per_class"]["bad"] == {"precision": 0, "recall": 0, "f1": 0, "images": 2}


def test_targets_by_hand():
    found = SingleLabel(tuple("abcd")).targets(jnp.array([2, 0]), 0.1)
    np.testing.assert_allclose(found, [[0.025, 0.025, 0.925, 0.025], [0.925, 0.025, 0.025, 0.025]], rtol=1e-6)
    np.testing.assert_array_equal(SingleLabel(("a", "b")).targets(jnp.array([1])), [[0, 1]])


def test_balanced_weights_by_hand():
    labels = np.array([0, 0, 0, 1, 0, 0, 2, 2])
    weights = SingleLabel(tuple("abc")).class_weights(labels, "balanced")
    assert weights is not None
    np.testing.assert_allclose(weights, [8 / 15, 8 / 3, 8 / 6], rtol=1e-6)
    np.testing.assert_allclose(
        weights, compute_class_weight("balanced", classes=np.arange(3), y=labels), rtol=1e-6
    )


@pytest.mark.parametrize("classes", ["abc", "abcde"])
def test_balanced_weights_are_one_on_average_even_with_empty_classes(classes):
    labels = np.array([0, 0, 0, 1, 0, 0, 2, 2])
    weights = SingleLabel(tuple(classes)).class_weights(labels, "balanced")
    assert weights is not None
    assert weights[labels].mean() == pytest.approx(1)
