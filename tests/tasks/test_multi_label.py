import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics

from transfer_jax.tasks import MultiLabel, make_task, task_from_json

NAMES = ("cat", "dog", "emu")
TASK = MultiLabel(NAMES)
RNG = np.random.default_rng(0)
LABELS = (RNG.random((60, 3)) < [0.5, 0.3, 0.1]).astype(np.uint8)
PROBABILITIES = np.clip(0.6 * LABELS + 0.5 * RNG.random((60, 3)), 0, 1).round(2)


def test_scores_are_those_of_scikit_learn():
    found, chosen = TASK.scores(PROBABILITIES, LABELS), PROBABILITIES >= 0.5
    assert found["mean_average_precision"] == pytest.approx(
        metrics.average_precision_score(LABELS, PROBABILITIES, average="macro")
    )
    assert found["macro_f1"] == pytest.approx(metrics.f1_score(LABELS, chosen, average="macro"))
    assert found["micro_f1"] == pytest.approx(metrics.f1_score(LABELS, chosen, average="micro"))
    assert found["exact_match"] == pytest.approx(metrics.accuracy_score(LABELS, chosen))
    assert found["label_accuracy"] == pytest.approx(1 - metrics.hamming_loss(LABELS, chosen))
    assert found["roc_auc"] == pytest.approx(metrics.roc_auc_score(LABELS, PROBABILITIES))
    losses = [metrics.log_loss(LABELS[:, i], PROBABILITIES[:, i]) for i in range(3)]
    assert found["log_loss"] == pytest.approx(np.mean(losses))
    assert found["per_class"]["dog"]["precision"] == pytest.approx(
        metrics.precision_score(LABELS[:, 1], chosen[:, 1])
    )
    assert (found["images"], found["task"]) == (60, "multi_label")


def test_a_label_without_images_does_not_count():
    labels = LABELS * np.array([1, 1, 0], np.uint8)
    found, others = TASK.scores(PROBABILITIES, labels), MultiLabel(NAMES[:2])
    known = others.scores(PROBABILITIES[:, :2], labels[:, :2])
    assert found["mean_average_precision"] == pytest.approx(known["mean_average_precision"])
    assert found["macro_f1"] == pytest.approx(known["macro_f1"])
    assert (found["roc_auc"], found["per_class"]["emu"]["f1"]) == (None, None)


def test_tuned_thresholds_have_the_best_f1_of_all():
    tuned = TASK.tuned(PROBABILITIES, LABELS)
    for i, name in enumerate(NAMES):
        every = np.linspace(0, 1, 201)
        best = max(metrics.f1_score(LABELS[:, i], PROBABILITIES[:, i] >= each) for each in every)
        assert tuned.scores(PROBABILITIES, LABELS)["per_class"][name]["f1"] == pytest.approx(best)
    assert TASK.tuned(PROBABILITIES, LABELS * 0).thresholds == (0.5, 0.5, 0.5)


def test_targets_and_step_scores_by_hand():
    labels, logits = jnp.array([[1, 0, 0]], jnp.uint8), jnp.array([[2.0, 1.0, -1.0]])
    np.testing.assert_allclose(TASK.targets(labels, 0.1), [[0.95, 0.05, 0.05]], rtol=1e-6)
    assert float(TASK.step_scores(logits, labels)["label_accuracy"]) == pytest.approx(2 / 3)
    loss = np.log1p(np.exp([-2.0, 1.0, -1.0])).mean()
    assert float(TASK.loss("auto")(logits, TASK.targets(labels))[0]) == pytest.approx(loss, rel=1e-6)


def test_answers_use_the_thresholds():
    task = MultiLabel(NAMES, (0.9, 0.2, 0.5))
    assert task.answers(np.array([[0.8, 0.3, 0.5], [0.0, 0.0, 0.0]])) == ["dog; emu", ""]
    assert task_from_json(task.to_json()) == task


def test_rare_combinations_are_strata_of_their_rarest_label():
    labels = np.array([[1, 0, 0]] * 5 + [[0, 1, 0]] * 5 + [[1, 1, 0], [1, 0, 1], [0, 1, 1]], np.uint8)
    strata = TASK.strata(labels)
    assert len(np.unique(strata[:10])) == 2
    assert strata[11] == strata[12]  # Both have the rarest label.
    assert strata[10] not in strata[:10]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros((2, 2), np.uint8), r"must be uint8 of shape \(n, 3\), one column for each label"),
        (np.zeros((2, 3)), "must be uint8"),
        (np.full((2, 3), 2, np.uint8), "must be 0 or 1, got 2"),
    ],
    ids=["columns", "dtype", "values"],
)
def test_invalid_labels_raise(labels, message):
    with pytest.raises(ValueError, match=message):
        TASK.check(labels)


@pytest.mark.parametrize(("kind", "loss"), [("multi_label", "mse"), ("regression", "bce")])
def test_losses_of_other_tasks_raise(kind, loss):
    with pytest.raises(ValueError, match=f"loss='{loss}' is not for the task {kind}; its losses are"):
        make_task(kind, NAMES).loss(loss)
