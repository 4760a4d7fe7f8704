"""Members that all tasks have."""

import numpy as np
import pytest

from transfer_jax.tasks import MultiLabel, Ordinal, Regression, SingleLabel, Task

RNG = np.random.default_rng(0)
SHARES = RNG.dirichlet(np.ones(3), 50)
CLASSES = RNG.integers(0, 3, 50).astype(np.int32)
CASES: dict[str, tuple[Task, np.ndarray, np.ndarray]] = {
    "single_label": (SingleLabel(("a", "b", "c")), SHARES, CLASSES),
    "ordinal": (Ordinal(("a", "b", "c")), SHARES, CLASSES),
    "multi_label": (MultiLabel(("a", "b", "c")), RNG.random((50, 3)), np.eye(3, dtype=np.uint8)[CLASSES]),
    "regression": (
        Regression(("x", "y")),
        RNG.normal(size=(50, 2)),
        RNG.normal(size=(50, 2)).astype(np.float32),
    ),
}


@pytest.mark.parametrize("kind", CASES)
def test_values_of_images_have_the_mean_of_the_headline(kind):
    task, predictions, labels = CASES[kind]
    values = task.image_values(predictions, labels)
    assert values.shape == (50,)
    assert values.mean() == pytest.approx(task.headline.of(task.scores(predictions, labels)))


@pytest.mark.parametrize("kind", CASES)
def test_columns_of_files_are_named_after_the_names(kind):
    task, predictions, _ = CASES[kind]
    assert len(task.prediction_columns) == predictions.shape[1]
    assert len(task.label_columns) in (0, len(task.names))


def test_metrics_write_their_values():
    accuracy, error = SingleLabel.metrics[0], Regression.metrics[0]
    assert (accuracy.difference_text(0.018), error.difference_text(-0.0312)) == ("+1.8 points", "-0.0312")
    assert (accuracy.gain(0.9, 0.8), error.gain(0.9, 0.8)) == (pytest.approx(0.1), pytest.approx(-0.1))
    assert accuracy.gain(None, 0.8) is None
    values = np.array([0.3, 0.1, 0.3])
    assert (accuracy.best(values), error.best(values)) == (0, 1)
