"""The optimism of the best validation score of a search."""

from pathlib import Path

import numpy as np

from transfer_jax.report.predictions import read_predictions
from transfer_jax.storage import workdir_files
from transfer_jax.tasks import Task

_SAMPLES = 200


def selection_optimism(workdirs: list[Path], task: Task, seed: int = 0) -> tuple[float, float] | None:
    """Estimates by how much the best trial's validation score is better because it is the best of many.

    The validation images are drawn with replacement. Each sample chooses its best trial; the optimism is the
    mean difference between that trial's score on the sample and on the images outside of it (the bootstrap of
    Tibshirani and Tibshirani 2009, "A bias correction for the minimum error rate in cross-validation", and of
    Efron and Tibshirani 1997 for the images outside).

    Args:
        workdirs: The folders of the trials, with predictions of the same validation images.
        task: The task.
        seed: Seed of the samples.

    Returns:
        The mean difference of the task's most important score, positive if the score is too good, and its
        standard deviation over the samples; None for fewer than two trials.
    """
    values = [_values(folder, task) for folder in workdirs]
    if len(values) < 2 or len({len(each) for each in values}) > 1:
        return None
    table = np.stack(values)  # (trials, images)
    rng, found = np.random.default_rng(seed), []
    count = table.shape[1]
    for _ in range(_SAMPLES):
        rows = rng.integers(0, count, count)
        outside = np.setdiff1d(np.arange(count), rows)
        if not len(outside):
            continue
        best = task.headline.best(table[:, rows].mean(1))
        found.append(task.headline.gain(table[best, rows].mean(), table[best, outside].mean()))
    return float(np.mean(found)), float(np.std(found, ddof=1))


def _values(folder: Path, task: Task) -> np.ndarray:
    """Returns a value of each validation image whose mean is the most important score."""
    predictions = read_predictions(workdir_files.predictions_file(folder))
    return task.image_values(predictions.values, predictions.labels)
