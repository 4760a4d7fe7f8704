"""Averages of trained models: greedy soups.

Source: Wortsman et al. 2022, arXiv:2203.05482.
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import jax

from transfer_jax.data import ImageDataset, load_dataset
from transfer_jax.data.class_order import with_classes
from transfer_jax.fields import as_tuple
from transfer_jax.models.flat_arrays import Arrays, split
from transfer_jax.report.progress import Progress, Silent
from transfer_jax.runs.predict import make_predictor
from transfer_jax.tasks.temperature import best_temperature
from transfer_jax.weights.saved_model import SavedModel


def greedy_soup(
    candidates: Sequence[Arrays], score: Callable[[Arrays], float]
) -> tuple[Arrays, tuple[int, ...]]:
    """Adds models to an average, best first, and keeps each that does not lower the score.

    Args:
        candidates: The arrays of each model.
        score: Returns the score of arrays on images that no model was trained on or is tested on; higher is
            better.

    Returns:
        The average, and the positions of the models in it.
    """
    alone = [score(arrays) for arrays in candidates]
    best, *rest = sorted(range(len(candidates)), key=lambda index: -alone[index])
    kept, reached = [best], alone[best]
    for index in rest:
        tried = score(average([candidates[each] for each in (*kept, index)]))
        if tried >= reached:
            kept, reached = [*kept, index], tried
    return average([candidates[index] for index in kept]), tuple(kept)


def average(candidates: Sequence[Arrays]) -> Arrays:
    """Returns the mean of each array over several models."""
    first, *rest = candidates
    return {path: sum((each[path] for each in rest), first[path]) / len(candidates) for path in first}


def soup(
    workdirs: Sequence[str | Path],
    images: str | Path | ImageDataset,
    out: str | Path,
    *,
    progress: Progress | None = None,
) -> tuple[Path, ...]:
    """Makes a greedy soup of finished runs, and writes it as a model.

    Args:
        workdirs: The workdirs of the runs, all of one network with the same classes.
        images: Labelled images that select the runs, as in `TrainConfig.images`; not used to train or test.
        out: The folder of the new model.
        progress: Receives the number of images predicted; None reports nothing.

    Returns:
        The workdirs of the runs in the soup, best first.

    Raises:
        ValueError: If the runs differ in network, classes or preprocessing, or the images have other classes.
    """
    progress, workdirs = progress or Silent(), as_tuple(workdirs)
    if not workdirs:
        raise ValueError("a soup needs at least one run, got no workdirs")
    loaded = [SavedModel.load(Path(workdir)) for workdir in workdirs]
    first, model = loaded[0]
    saved = _untuned(first)
    dataset = images
    if not isinstance(dataset, ImageDataset):
        dataset = load_dataset(dataset, task=saved.task.kind)
    for workdir, (other, _) in zip(workdirs, loaded, strict=True):
        if _untuned(other) != saved:
            raise ValueError(f"{workdir} differs from {workdirs[0]} in network, classes or preprocessing")
    dataset = with_classes(dataset, saved.class_names)
    graphdef, _, _ = split(model)
    candidates = [{**params, **stats} for _, params, stats in (split(each) for _, each in loaded)]

    predictor = make_predictor(saved, graphdef, dataset)

    metric = saved.task.step_metric

    def score(arrays: Arrays) -> float:
        value = saved.task.scores(predictor(arrays, progress), dataset.labels)[metric.name]
        return -value if metric.lower_is_better else value

    arrays, kept = greedy_soup(candidates, score)
    predictions = predictor(arrays, progress)
    task = saved.task.tuned(predictions, dataset.labels)
    temperature = best_temperature(task, predictions, dataset.labels)
    dataclasses.replace(saved, task=task, temperature=temperature).save(Path(out), jax.device_get(arrays))
    return tuple(Path(workdirs[index]) for index in kept)


def _untuned(saved: SavedModel) -> SavedModel:
    """Returns the description of a model without what its validation images chose."""
    return dataclasses.replace(saved, task=saved.task.untuned(), temperature=None)
