"""Temperature scaling of probabilities."""

import numpy as np
import pytest

from transfer_jax.diagnostics import reliability
from transfer_jax.diagnostics.calibration import calibration_error
from transfer_jax.tasks import MultiLabel, Ordinal, Regression, SingleLabel, Task
from transfer_jax.tasks.temperature import LEAST, at_temperature, best_temperature

NAMES = ("a", "b", "c")
TASKS = [SingleLabel(NAMES), Ordinal(NAMES), MultiLabel(NAMES, (0.2, 0.5, 0.8))]


def overconfident(task: Task, factor: float, count: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Returns predictions whose logits are `factor` times those of the probabilities of the labels."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(count, task.outputs))
    true = task.predictions(logits)
    drawn = rng.random((count, len(task.names)))
    if task.label_columns:
        labels = (drawn < true).astype(np.uint8)
    else:
        labels = (drawn[:, :1] > np.cumsum(true, -1)[:, :-1]).sum(-1).astype(np.int32)
    return task.predictions(factor * logits), labels


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.kind)
def test_logits_are_the_inverse_of_predictions(task):
    predictions, _ = overconfident(task, 1.0, 50)
    np.testing.assert_allclose(task.predictions(task.logits(predictions)), predictions, atol=1e-12)
    np.testing.assert_allclose(at_temperature(task, predictions, 1.0), predictions, atol=1e-12)
    certain = np.eye(3)
    assert np.isfinite(task.logits(certain)).all()
    np.testing.assert_allclose(task.predictions(task.logits(certain)), certain, atol=1e-12)


@pytest.mark.parametrize("factor", [0.5, 3.0])
@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.kind)
def test_the_temperature_is_the_factor_of_overconfidence(task, factor):
    predictions, labels = overconfident(task, factor)
    found = best_temperature(task, predictions, labels)
    assert found is not None
    assert found == pytest.approx(factor, rel=0.1)
    scaled = at_temperature(task, predictions, found)
    before, after = (reliability(each, labels)["ece"] for each in (predictions, scaled))
    assert after < (before if isinstance(task, Ordinal) else 0.3 * before)
    text = calibration_error(task, predictions, labels, found)
    assert text == (
        f"Calibration error: {before:.1%}, with the temperature {found:.3g} (--calibrated): {after:.1%}"
    )


@pytest.mark.parametrize("task", [TASKS[0], TASKS[2]], ids=lambda task: task.kind)
def test_answers_are_the_same(task):
    predictions, _ = overconfident(task, 3.0, 200)
    scaled = at_temperature(task, predictions, 3.0)
    assert task.at_temperature(3.0).answers(scaled) == task.answers(predictions)


def test_without_enough_information_there_is_none():
    task = TASKS[0]
    predictions, labels = overconfident(task, 2.0)
    assert best_temperature(task, predictions[: LEAST - 1], labels[: LEAST - 1]) is None
    right = np.eye(3)[labels] * 0.4 + 0.2
    assert best_temperature(task, right, labels) is None  # All are right, so no confidence is too large.
    numbers = Regression(("x",))
    assert best_temperature(numbers, labels[:, None] * 1.0, labels[:, None].astype(np.float32)) is None
    with pytest.raises(ValueError, match="the task regression has no probabilities"):
        numbers.logits(np.zeros((1, 1)))
