import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics

from transfer_jax.training.evaluation import evaluation_metrics, predict

LABELS = np.array([0, 0, 0, 0, 1, 1])
PROBABILITIES = np.array([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.3, 0.7], [0.45, 0.55], [0.7, 0.3]])


def test_two_classes_by_hand():
    scores = evaluation_metrics(PROBABILITIES, LABELS, ("good", "bad"))
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
    found = evaluation_metrics(PROBABILITIES, LABELS, ("good", "bad"), weights)
    assert found["weighted_accuracy"] == pytest.approx(5 / 10)
    assert found["accuracy"] == pytest.approx(4 / 6)
    assert "weighted_accuracy" not in evaluation_metrics(PROBABILITIES, LABELS, ("good", "bad"))


def test_many_classes_are_scikit_learn_s():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 60)
    probabilities = rng.dirichlet(np.ones(4), 60)
    predicted = probabilities.argmax(-1)
    scores = evaluation_metrics(probabilities, labels, "abcd")
    assert scores["balanced_accuracy"] == pytest.approx(metrics.balanced_accuracy_score(labels, predicted))
    assert scores["macro_f1"] == pytest.approx(metrics.f1_score(labels, predicted, average="macro"))
    one_by_one = [metrics.roc_auc_score(labels == i, probabilities[:, i]) for i in range(4)]
    assert scores["roc_auc"] == pytest.approx(np.mean(one_by_one))


def test_a_class_without_images_counts_for_nothing():
    padded = np.column_stack([PROBABILITIES, np.zeros(6)])
    scores = evaluation_metrics(padded, LABELS, ("good", "bad", "ugly"))
    whole = evaluation_metrics(PROBABILITIES, LABELS, ("good", "bad"))
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "log_loss"):
        assert scores[name] == pytest.approx(whole[name])
    assert scores["roc_auc"] is None
    assert scores["per_class"]["ugly"] == {"precision": None, "recall": None, "f1": None, "images": 0}


def test_a_class_without_images_that_is_predicted_has_no_scores_either():
    probabilities = np.array([[0.8, 0.1, 0.1], [0.1, 0.1, 0.8], [0.2, 0.7, 0.1]])
    scores = evaluation_metrics(probabilities, np.array([0, 0, 1]), ("good", "bad", "ugly"))
    assert scores["per_class"]["ugly"]["precision"] is None
    assert scores["balanced_accuracy"] == pytest.approx((1 / 2 + 1) / 2)
    assert scores["macro_f1"] == pytest.approx((2 / 3 + 1) / 2)
    assert scores["confusion"][0] == [1, 0, 1]


def test_a_class_that_is_never_predicted_has_no_precision():
    scores = evaluation_metrics(np.tile([0.9, 0.1], (6, 1)), LABELS, ("good", "bad"))
    assert scores["per_class"]["bad"] == {"precision": 0, "recall": 0, "f1": 0, "images": 2}


@pytest.mark.parametrize("kind", ["image", "features"])
def test_predictions_leave_the_filling_out(kind):
    rows = np.arange(10.0)
    batches = [
        {kind: np.minimum(np.arange(i, i + 4), 9), "mask": np.arange(i, i + 4) < 10, "label": None}
        for i in (0, 4, 8)
    ]

    def step(arrays, inputs):
        assert set(inputs) == {kind}
        return jnp.stack([inputs[kind], jnp.zeros(4)], -1) * arrays["scale"]

    found = predict(step, {"scale": jnp.float32(0.1)}, batches)
    assert found.shape == (10, 2)
    np.testing.assert_allclose(found[:, 0], 1 / (1 + np.exp(-rows / 10)), rtol=1e-5)
