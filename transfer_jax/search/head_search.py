"""A search for the best head or tail: a grid of them trains on features that are extracted once."""

import csv
import dataclasses
import io
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from transfer_jax.config import TrainConfig
from transfer_jax.data import ImageDataset, ordered_batches, stratified_split
from transfer_jax.data.split import divisible_counts
from transfer_jax.freezing import Phase, Schedule
from transfer_jax.models import PRE_LOGITS
from transfer_jax.models.flat_arrays import Arrays
from transfer_jax.planning.resolved_run import ResolvedRun
from transfer_jax.report.progress import Progress
from transfer_jax.runs.load_network import load_network
from transfer_jax.runs.resolve import resolve_with
from transfer_jax.runs.workdir import check_place
from transfer_jax.search.head_sweep import Candidate, Examples, Grid, Sweep, sweep_heads
from transfer_jax.search.knn_probe import KS, knn_score, usable_ks
from transfer_jax.search.linear_probe import linear_score
from transfer_jax.search.probe_data import ProbeData
from transfer_jax.search.probe_result import DepthScore
from transfer_jax.search.tail_sweep import TAIL_GRID, sweep_tails
from transfer_jax.storage import workdir_files
from transfer_jax.storage.atomic_write import write_text
from transfer_jax.storage.workdir_lock import workdir_lock
from transfer_jax.tasks import Task
from transfer_jax.tasks.temperature import best_temperature
from transfer_jax.training.evaluation import predict
from transfer_jax.training.feature_extractor import FeatureExtractor
from transfer_jax.training.phase_programs import PhasePrograms
from transfer_jax.training.run import Run
from transfer_jax.weights.saved_model import SavedModel


@dataclasses.dataclass(frozen=True)
class HeadSearch:
    """The result of a search.

    Attributes:
        sweep: All candidates with their scores on the part of the training images that selects the best.
        seconds: Seconds to train them, without compilation.
        metrics: Scores of the best candidate on the validation images of the run, which selected nothing.
        temperature: Number by which the outputs of the best candidate are divided for calibrated
            probabilities; the images that selected it chose this number. None as in `best_temperature`.
        linear: The score of a linear model that is regularized by a cross-validation of all training images,
            on the validation images; see `linear_probe`. None if more than a linear head trains.
        neighbours: The score of the nearest neighbours of the validation images among all training images;
            None if more than a linear head trains.
        trained_images: Number of training images that all candidates were trained on.
        selecting_images: Number of the other training images, which select the best candidate.
    """

    sweep: Sweep
    seconds: float
    metrics: dict[str, Any]
    temperature: float | None
    linear: DepthScore | None
    neighbours: DepthScore | None
    trained_images: int
    selecting_images: int


def search_heads(
    config: TrainConfig | ResolvedRun,
    workdir: Path,
    grid: Grid | None = None,
    *,
    train: str = "head",
    validation_fraction: float = 0.25,
    epochs: int = 100,
    patience: int = 10,
    progress: Progress,
) -> HeadSearch:
    """Trains a grid of heads or tails on cached features; writes the best one as a model, and `heads.csv`.

    A part of the training images selects the best candidate, its temperature and the thresholds of labels.
    The validation images are only scored at the end.

    Args:
        config: The images, the network and the preprocessing, as a config or as the result of `resolve`. The
            schedule is not used.
        workdir: The folder to write to.
        grid: The candidates; None takes 256 heads, or twelve tails.
        train: Selector of the parameters that each candidate trains.
        validation_fraction: Fraction of the training images that selects the best candidate.
        epochs: Largest number of epochs.
        patience: Number of epochs without improvement after which a candidate stops.
        progress: Receives the progress of extraction and training.

    Returns:
        All candidates, and the scores of the best one.

    Raises:
        ValueError: If the lowest block would train, the folder belongs to a training run, the training images
            are too few to select with a part of them, or the task has no label smoothing.
    """
    check_place(config.config if isinstance(config, ResolvedRun) else config, workdir)
    if (workdir / workdir_files.CONFIG).exists():
        raise ValueError(f"{workdir} is the folder of a training run; choose another with --workdir")
    phase = Phase(name="sweep", train=train, epochs=epochs, learning_rate=1.0, cache="require")
    one_device = {"strategy": "jit", "fsdp": 1, "tensor": 1}
    resolved = resolve_with(config, progress, schedule=Schedule((phase,)), **one_device)
    if grid is not None:
        resolved.train.task.check_smoothing(max(grid.label_smoothings), "label_smoothings")
    divided = _divided(resolved.train, validation_fraction, resolved.config.seed)
    run = load_network(resolved, workdir)
    parts = run.parts(0)
    assert parts.boundary is not None  # The required cache has one.
    extractor = FeatureExtractor(run, parts.boundary, run.arrays)
    caches = [
        extractor.extract(part, progress, f"extracting {name} features").cache
        for part, name in ((run.train, "training"), (run.evaluation, "validation"))
    ]
    features, final = (
        np.asarray(cache.gather(np.arange(len(cache)))["features"], np.float32) for cache in caches
    )
    rows = {name: row for row, name in enumerate(run.train.names)}
    fitted, scored = (_examples(features[[rows[name] for name in part.names]], part) for part in divided)
    linear = parts.boundary == PRE_LOGITS and not run.config.hidden
    grid = grid or _default_grid(run, linear)
    count = len(grid.settings()) * len(grid.seeds)
    what = "heads" if linear else "tails"
    progress.log(
        f"training {count} {what} on {len(fitted.labels)} images; {len(scored.labels)} select the best"
    )
    limits = {"epochs": epochs, "patience": patience}
    started = time.perf_counter()
    if linear:
        dropout = run.config.dropout or 0.0
        sweep = sweep_heads(fitted, scored, run.task, grid, dropout=dropout, **limits)
    else:
        sweep = sweep_tails(run, parts, fitted, scored, grid, progress=progress, **limits)
    seconds = time.perf_counter() - started - sweep.compile_seconds
    best = {**run.arrays, **jax.device_put(dict(sweep.candidates[0].arrays))}
    evaluate = jax.jit(PhasePrograms(run, parts).functions["evaluate"])

    def predicted(inputs: np.ndarray) -> Any:
        batches = ordered_batches(
            lambda rows: {"features": inputs[rows]}, len(inputs), batch_size=run.batch_size
        )
        return predict(evaluate, best, batches, run.task)

    selecting, truth = predicted(scored.features), run.evaluation
    task = run.task.tuned(selecting, scored.labels)
    temperature = best_temperature(task, selecting, scored.labels)
    with workdir_lock(workdir):
        write_text(workdir / "heads.csv", _csv(sweep))
        _save(run, task, temperature, best)
    metrics = task.scores(predicted(final), truth.labels, truth.weights)
    found: dict[str, DepthScore | None] = {"linear": None, "neighbours": None}
    if linear:
        data, every = _probe_data(run, len(features), len(final)), np.concatenate([features, final])
        progress.log("fitting a linear model and nearest neighbours for comparison")
        found["linear"] = linear_score(every, data, seed=run.config.seed)
        found["neighbours"] = knn_score(every, data, usable_ks(KS, len(features)))
    return HeadSearch(
        sweep=sweep,
        seconds=seconds,
        metrics=metrics,
        temperature=temperature,
        trained_images=len(fitted.labels),
        selecting_images=len(scored.labels),
        **found,
    )


def _probe_data(run: Run, count: int, validation: int) -> ProbeData:
    """Returns the data of probes on the features of `count` training images and of the validation images."""
    parts = (run.train, run.evaluation)
    weights = [np.ones(len(part), np.float32) if part.weights is None else part.weights for part in parts]
    images = count + validation
    return ProbeData(
        task=run.task,
        labels=np.concatenate([part.labels for part in parts]),
        train=np.arange(count),
        validation=np.arange(count, images),
        groups=_groups(run.train, images),
        weights=np.concatenate(weights),
    )


def _groups(train: ImageDataset, images: int) -> np.ndarray:
    """Returns the group of each image; near duplicates of the training images have the same one."""
    groups = -1 - np.arange(images)
    if train.together is not None:
        groups[: len(train)] = train.together
    return groups


def _default_grid(run: Run, linear: bool) -> Grid:
    """Returns the default candidates; numbers have no label smoothing."""
    if not linear:
        return TAIL_GRID
    return Grid() if run.task.probabilistic else Grid(label_smoothings=(0.0,))


def _divided(train: ImageDataset, fraction: float, seed: int) -> tuple[ImageDataset, ImageDataset]:
    """Splits training images into those that train the candidates and those that select the best one."""
    if divisible_counts(train, train.together).max() < 2:
        kind = "image," if train.together is None else "image, or group of near duplicates,"
        raise ValueError(
            f"each class has a single training {kind} so none is left to select the best candidate: add "
            "images, or increase images_per_class (--images-per-class) if it is set"
        )
    return stratified_split(train, fraction, seed, "validation_fraction (--validation)")


def _examples(features: np.ndarray, dataset: ImageDataset) -> Examples:
    return Examples(features, dataset.labels, dataset.weights)


def _save(run: Run, task: Task, temperature: float | None, arrays: Arrays) -> None:
    saved = SavedModel(
        model=run.config.model,
        task=task,
        temperature=temperature,
        preprocessing=run.preprocessing,
        hidden=run.config.hidden,
        taps=run.config.taps,
    )
    saved.save(run.workdir / workdir_files.MODEL, arrays)


def _csv(sweep: Sweep) -> str:
    """Returns a CSV line for each candidate, best first, without its arrays."""
    names = [field.name for field in dataclasses.fields(Candidate) if field.repr]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([getattr(found, name) for name in names] for found in sweep.candidates)
    return text.getvalue()
