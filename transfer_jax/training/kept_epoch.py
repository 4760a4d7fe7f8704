"""The rule for which epoch of a phase is kept, and how often a phase validates.

The best epoch is kept if there are at least `ENOUGH` validation images. With fewer, one image is more than
five percent of the mean, and the best epoch is mostly luck.
"""

import math
from collections.abc import Mapping
from typing import Any

from transfer_jax.config import TrainConfig
from transfer_jax.freezing.phase import Phase
from transfer_jax.tasks import Metric, Task

ENOUGH = 20
"""Number of validation images from which `keep_epoch="auto"` keeps the best epoch."""


def keeps_best(config: TrainConfig, phase: Phase, images: int) -> bool:
    """Returns True if a phase keeps its best epoch, False if it keeps its last one.

    Args:
        config: The config.
        phase: One of its phases.
        images: Number of validation images.
    """
    choice = config.keep_epoch if phase.keep_epoch == "auto" else phase.keep_epoch
    return images >= ENOUGH if choice == "auto" else choice == "best"


def patience(config: TrainConfig, phase: Phase) -> int:
    """Returns the number of epochs without a better one after which a phase ends early; 0 for never."""
    return config.patience if phase.patience is None else phase.patience


def validation_interval(config: TrainConfig, phase: Phase, images: int) -> int:
    """Returns the number of epochs between validations of a phase; 0 if it validates at its end only.

    Args:
        config: The config.
        phase: One of its phases.
        images: Number of validation images.
    """
    if config.eval_every:
        return config.eval_every
    return int(keeps_best(config, phase, images) or patience(config, phase) > 0)


def keep_metric(config: TrainConfig, task: Task) -> Metric:
    """Returns the score that chooses the best epoch.

    Raises:
        ValueError: If the task has no such score; the message names those that it has.
    """
    name = config.keep_metric
    if not name:
        return task.objective
    known = {metric.name: metric for metric in (*task.metrics, task.objective)}
    if name not in known:
        raise ValueError(
            f"keep_metric must be one of the scores of the task {task.kind}, {', '.join(known)}, got {name!r}"
        )
    return known[name]


def value_of(metric: Metric, scores: Mapping[str, Any]) -> float:
    """Returns the value of a score.

    Raises:
        ValueError: If the score is missing, such as a ROC AUC where a class has no validation images.
    """
    value = metric.of(scores)
    if value is None:
        raise ValueError(
            f"keep_metric={metric.name!r} has no value on the validation images, for example because a class "
            "has none of them; choose another score, such as keep_metric='log_loss' (--keep-metric log_loss)"
        )
    return float(value)


def is_better(metric: Metric, value: float, than: float) -> bool:
    """Returns True if a value is better than another one; any number is better than NaN."""
    if math.isnan(value) or math.isnan(than):
        return math.isnan(than) and not math.isnan(value)
    return metric.is_better(value, than)
