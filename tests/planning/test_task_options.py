"""Fields of a config that depend on the task."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from transfer_jax.config import TrainConfig
from transfer_jax.planning.task_options import check_task_options
from transfer_jax.tasks import MultiLabel, Ordinal, Regression, SingleLabel

REGRESSION = (Regression(("age",)), np.array([[1], [2]], np.float32))
TAGS = (MultiLabel(("a", "b")), np.array([[1, 0], [1, 1]], np.uint8))
CLASSES = (SingleLabel(("a", "b")), np.array([0, 1], np.int32))
GRADES = (Ordinal(("a", "b", "c")), np.array([0, 2], np.int32))


@pytest.mark.parametrize(
    ("task", "changes", "message"),
    [
        (REGRESSION, {"label_smoothing": 0.1}, "label_smoothing must be 0 for the task regression"),
        (REGRESSION, {"loss": "focal"}, "loss='focal' is not for the task regression; its losses are mse"),
        (TAGS, {"class_weights": "balanced"}, "class_weights='balanced' needs classes that exclude"),
        (CLASSES, {"keep_metric": "mae"}, "keep_metric must be one of the scores of the task single_label"),
    ],
    ids=lambda value: "" if isinstance(value, tuple) else None,
)
def test_fields_that_do_not_fit_are_named(task, changes, message):
    train: Any = SimpleNamespace(task=task[0], labels=task[1])
    with pytest.raises(ValueError, match=message):
        check_task_options(TrainConfig(images="x", **changes), train)


@pytest.mark.parametrize(
    ("task", "changes"),
    [
        (REGRESSION, {"loss": "huber", "keep_metric": "r2"}),
        (TAGS, {"loss": "focal", "label_smoothing": 0.1}),
        (CLASSES, {"loss": lambda outputs, targets: 1 / 0, "class_weights": "balanced"}),
        (GRADES, {"label_smoothing": 0.1, "keep_metric": "quadratic_kappa"}),
    ],
    ids=lambda value: value[0].kind if isinstance(value, tuple) else None,
)
def test_fields_that_fit_pass(task, changes):
    train: Any = SimpleNamespace(task=task[0], labels=task[1])
    check_task_options(TrainConfig(images="x", **changes), train)
