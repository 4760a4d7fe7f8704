import dataclasses

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import average_precision_score, mean_absolute_error
from sklearn.preprocessing import StandardScaler

from transfer_jax.data import from_arrays
from transfer_jax.search.linear_probe import fold_numbers, linear_probe

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 3, 240)
FEATURES = (np.eye(3)[LABELS] @ RNG.normal(size=(3, 10)) + 1.5 * RNG.normal(size=(240, 10))).astype(
    np.float32
)
FEATURES = FEATURES * np.geomspace(0.01, 100, 10, dtype=np.float32) + 50
VALIDATION, TRAIN = np.arange(180, 240), np.arange(180)


def peer(l2, train, weights=None):
    """Scikit-learn's classifier with the same penalty, on features that are standardized with `TRAIN`."""
    scaled = StandardScaler().fit(FEATURES[TRAIN]).transform(FEATURES)
    shares = np.ones(240) if weights is None else weights
    c = 1 / (l2 * shares[train].sum())
    model = LogisticRegression(C=c, tol=1e-8, max_iter=5000)
    model.fit(scaled[train], LABELS[train], sample_weight=shares[train])
    return np.equal(model.predict(scaled), LABELS)


@pytest.mark.parametrize("l2", [1.0, 0.01, 1e-4])
def test_accuracies_are_those_of_scikit_learn(l2):
    found = linear_probe(FEATURES, LABELS, VALIDATION, l2s=(l2,)).scores["features"]
    assert found.score == pytest.approx(peer(l2, TRAIN)[VALIDATION].mean(), abs=1 / 60)
    fold = fold_numbers(LABELS[TRAIN], TRAIN, 5, 0)
    correct = [peer(l2, TRAIN[fold != each])[TRAIN[fold == each]] for each in range(5)]
    assert found.training_score == pytest.approx(np.concatenate(correct).mean(), abs=1 / 60)


def test_penalty_is_chosen_without_the_validation_examples():
    l2s = (3.0, 0.1, 1e-3)
    each = {l2: linear_probe(FEATURES, LABELS, VALIDATION, l2s=(l2,)).scores["features"] for l2 in l2s}
    chosen = linear_probe(FEATURES, LABELS, VALIDATION, l2s=l2s).scores["features"]
    assert chosen.training_score == pytest.approx(max(one.training_score for one in each.values()), abs=0.01)
    permuted = LABELS.copy()
    permuted[VALIDATION] = np.roll(LABELS[VALIDATION], 1)
    again = linear_probe(FEATURES, permuted, VALIDATION, l2s=l2s).scores["features"]
    assert (again.setting, again.training_score) == (chosen.setting, chosen.training_score)


def test_result_is_the_same_every_time():
    arguments = ({"low": FEATURES[:, :3], "high": FEATURES}, LABELS)
    first, second = linear_probe(*arguments), linear_probe(*arguments)
    assert first == second
    assert first.best == "high"


def test_weights_are_those_of_scikit_learn():
    weights = RNG.uniform(0.1, 5, 240).astype(np.float32)
    dataset = dataclasses.replace(from_arrays(np.zeros((240, 2, 2), np.uint8), LABELS), weights=weights)
    found = linear_probe(FEATURES, dataset, VALIDATION, l2s=(0.01,)).scores["features"]
    correct = peer(0.01, TRAIN, weights)[VALIDATION]
    assert found.score == pytest.approx(np.average(correct, weights=weights[VALIDATION]), abs=0.03)


def of_task(labels, task: str):
    return from_arrays(np.zeros((240, 2, 2), np.uint8), labels, ["a", "b"], task=task)


def test_numbers_have_the_error_of_ridge_regression():
    numbers = np.stack([LABELS * 10.0 + RNG.normal(size=240), FEATURES[:, 1]], 1)
    found = linear_probe(FEATURES, of_task(numbers, "regression"), VALIDATION, l2s=(0.1,))
    scaled = StandardScaler().fit(FEATURES[TRAIN]).transform(FEATURES)
    units = StandardScaler().fit(numbers[TRAIN])
    # Our loss is the mean over both quantities, scikit-learn's the sum over examples for each of them.
    model = Ridge(alpha=0.1 * len(TRAIN)).fit(scaled[TRAIN], units.transform(numbers[TRAIN]))
    predicted = units.inverse_transform(model.predict(scaled[VALIDATION]))
    error = mean_absolute_error(numbers[VALIDATION], predicted)
    assert found.metric.name == "mae"
    assert found.scores["features"].score == pytest.approx(error, rel=1e-3)
    assert found.scores["features"].training_score == pytest.approx(error, rel=0.3)
    assert "MAE of a linear model" in str(found)


def test_several_labels_have_the_precision_of_logistic_regressions():
    tags = np.stack([LABELS == 0, RNG.random(240) < 0.2 + 0.3 * LABELS], 1).astype(int)
    found = linear_probe(FEATURES, of_task(tags, "multi_label"), VALIDATION, l2s=(0.01,))
    scaled = StandardScaler().fit(FEATURES[TRAIN]).transform(FEATURES)
    c = 1 / (0.01 * len(TRAIN) * 2)
    models = [LogisticRegression(C=c, tol=1e-8).fit(scaled[TRAIN], tag[TRAIN]) for tag in tags.T]
    predicted = np.stack([model.predict_proba(scaled[VALIDATION])[:, 1] for model in models], 1)
    expected = average_precision_score(tags[VALIDATION], predicted, average="macro")
    assert found.values["features"] == pytest.approx(expected, abs=1e-3)


def test_constant_channels_do_not_count():
    constant = np.concatenate([FEATURES, np.full((240, 5), 7.3, np.float32)], 1)
    found = [linear_probe(each, LABELS, l2s=(0.01,)).values["features"] for each in (FEATURES, constant)]
    assert found[0] == found[1]


def test_folds_have_the_proportions_of_the_classes_and_whole_groups():
    labels, groups = np.array([0] * 20 + [1] * 10), np.arange(30) // 2
    fold = fold_numbers(labels, groups, 5, 0)
    assert [np.bincount(labels[fold == each]).tolist() for each in range(5)] == [[4, 2]] * 5
    assert all(len({*fold[groups == group]}) == 1 for group in range(15))


@pytest.mark.parametrize("options", [{"l2s": ()}, {"l2s": (0.0,)}, {"folds": 1}])
def test_invalid_options_are_errors(options):
    with pytest.raises(ValueError, match="l2s must be above 0 and folds at least 2"):
        linear_probe(FEATURES, LABELS, **options)
