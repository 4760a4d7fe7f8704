from typing import Any

import numpy as np
import pytest
from sklearn import metrics

from transfer_jax.tasks.classification_scores import class_scores, log_loss, roc_auc
from transfer_jax.tasks.confusions import Confusions


@pytest.fixture(params=[(2, 40), (5, 60), (3, 2000)], ids=str)
def predictions(request):
    """True classes and probabilities, some of them equal and some of them zero."""
    classes, images = request.param
    rng = np.random.default_rng(images)
    labels = np.concatenate([np.arange(classes), rng.integers(0, classes, images - classes)])
    probabilities = rng.dirichlet(np.ones(classes) / 3, images).round(2)
    return labels, probabilities / probabilities.sum(1, keepdims=True)


def test_they_are_those_of_scikit_learn(predictions):
    labels, probabilities = predictions
    classes, predicted = np.arange(probabilities.shape[1]), probabilities.argmax(-1)
    confusions = Confusions.of(labels, predicted, len(classes))
    np.testing.assert_array_equal(
        confusions.matrix(), metrics.confusion_matrix(labels, predicted, labels=classes)
    )
    with_zeros: Any = 0  # the type stubs know strings only
    expected = metrics.precision_recall_fscore_support(
        labels, predicted, labels=classes, zero_division=with_zeros
    )
    for found, known in zip(class_scores(confusions), expected, strict=True):
        np.testing.assert_allclose(found, np.asarray(known), rtol=1e-15)
    assert log_loss(labels, probabilities) == pytest.approx(
        metrics.log_loss(labels, probabilities, labels=classes), rel=1e-14
    )
    scores = probabilities[:, 1] if len(classes) == 2 else probabilities
    known = metrics.roc_auc_score(labels, scores, multi_class="ovr")
    assert roc_auc(labels, probabilities) == pytest.approx(known, rel=1e-14)
