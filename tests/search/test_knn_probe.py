import dataclasses
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import average_precision_score
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

from transfer_jax.data import from_arrays
from transfer_jax.search.knn_probe import knn_probe

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 3, 240)
NOISY = (np.eye(3)[LABELS] @ RNG.normal(size=(3, 10)) + 1.2 * RNG.normal(size=(240, 10))).astype(np.float32)
CLEAN = NOISY + 4 * np.eye(10, dtype=np.float32)[LABELS]
VALIDATION = np.arange(180, 240)
TRAIN = np.arange(180)


def peer(k, temperature, train, validation):
    """The accuracy of scikit-learn's neighbours with the same votes."""
    votes: Any = lambda distance: np.exp(-distance / temperature)  # noqa: E731
    model = KNeighborsClassifier(k, metric="cosine", algorithm="brute", weights=votes)
    return model.fit(NOISY[train], LABELS[train]).score(NOISY[validation], LABELS[validation])


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.07), (7, 1.0), (50, 0.07)])
def test_accuracy_is_that_of_scikit_learn(k, temperature):
    found = knn_probe(NOISY, LABELS, VALIDATION, ks=(k,), temperature=temperature).scores["features"]
    assert found.score == pytest.approx(peer(k, temperature, TRAIN, VALIDATION))
    left_out = [peer(k, temperature, np.delete(TRAIN, row), [row]) for row in TRAIN]
    assert found.training_score == pytest.approx(np.mean(left_out))


@pytest.mark.parametrize("task", ["regression", "multi_label"])
def test_other_targets_are_means_of_the_neighbours(task):
    targets = np.stack([LABELS == 0, RNG.random(240) < 0.2 + 0.3 * LABELS], 1).astype(int)
    if task == "regression":
        targets = 10.0 * targets + RNG.normal(size=(240, 2))
    dataset = from_arrays(np.zeros((240, 2, 2), np.uint8), targets, ["a", "b"], task=task)
    votes: Any = lambda distance: np.exp(-distance / 0.5)  # noqa: E731
    model = KNeighborsRegressor(20, metric="cosine", algorithm="brute", weights=votes)
    predicted = model.fit(NOISY[TRAIN], targets[TRAIN]).predict(NOISY[VALIDATION])
    truth = targets[VALIDATION]
    if task == "regression":
        expected = np.abs(predicted - truth).mean()
    else:
        expected = average_precision_score(truth, predicted, average="macro")
    found = knn_probe({"low": NOISY[:, :1], "high": NOISY}, dataset, VALIDATION, ks=(20,), temperature=0.5)
    assert found.values["high"] == pytest.approx(expected, rel=1e-4)
    assert found.best == "high"


def test_k_is_chosen_without_the_validation_examples():
    ks = (1, 7, 50)
    each = {k: knn_probe(NOISY, LABELS, VALIDATION, ks=(k,)).scores["features"] for k in ks}
    chosen = knn_probe(NOISY, LABELS, VALIDATION, ks=ks).scores["features"]
    best = max(ks, key=lambda k: each[k].training_score)
    assert chosen == each[best]
    permuted = LABELS.copy()
    permuted[VALIDATION] = np.roll(LABELS[VALIDATION], 1)
    assert knn_probe(NOISY, permuted, VALIDATION, ks=ks).scores["features"].setting == best


def test_table_of_depths():
    found = knn_probe({"low": NOISY, "high": CLEAN}, LABELS)
    assert found.best == "high"
    assert found.values["high"] > found.values["low"]
    lines = str(found).splitlines()
    assert "180 training and 60 validation examples" in lines[0]
    assert [line.split()[0] for line in lines[1:]] == ["depth", "low", "high"]
    assert lines[3].startswith("high *")


def test_near_duplicates_are_no_neighbours():
    copies = np.concatenate([NOISY, NOISY])
    dataset = from_arrays(np.zeros((480, 2, 2), np.uint8), np.tile(LABELS, 2))
    alone = knn_probe(copies, dataset, ks=(1,)).scores["features"]
    together = dataclasses.replace(dataset, together=np.tile(np.arange(240), 2))
    kept = knn_probe(copies, together, ks=(1,)).scores["features"]
    assert alone.training_score > kept.training_score + 0.05


def test_weights_count():
    dataset = from_arrays(np.zeros((240, 2, 2), np.uint8), LABELS)
    weights = np.where(np.isin(np.arange(240), VALIDATION[:1]), 1e4, 1e-4).astype(np.float32)
    found = knn_probe(NOISY, dataclasses.replace(dataset, weights=weights), VALIDATION)
    assert found.scores["features"].score == pytest.approx(round(found.scores["features"].score))


def test_few_examples_have_few_neighbours():
    found = knn_probe(CLEAN[:8], np.array([0, 1] * 4), [0, 1])
    assert found.scores["features"].setting in (1, 5)


@pytest.mark.parametrize("options", [{"temperature": 0}, {"ks": ()}, {"ks": (0, 1)}])
def test_invalid_options_are_errors(options):
    with pytest.raises(ValueError, match="temperature and ks must be above 0"):
        knn_probe(NOISY, LABELS, **options)
