"""A trial of a search that trains a sweep of heads on the features of a network."""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from transfer_jax.data import ordered_batches
from transfer_jax.freezing.recipes import feature_extraction
from transfer_jax.models import PRE_LOGITS
from transfer_jax.planning.resolved_run import ResolvedRun
from transfer_jax.report.progress import Progress
from transfer_jax.runs.artifacts import write_artifacts
from transfer_jax.runs.load_network import load_network
from transfer_jax.search.grid import Grid
from transfer_jax.search.head_sweep import Examples, sweep_heads
from transfer_jax.training.evaluation import predict
from transfer_jax.training.feature_extractor import FeatureExtractor
from transfer_jax.training.phase_programs import PhasePrograms

GRID = Grid(
    learning_rates=(3e-4, 1e-3, 3e-3, 1e-2),
    weight_decays=(0.0, 0.01, 0.1),
    label_smoothings=(0.0, 0.1),
    seeds=(0,),
)
"""The heads of a trial: 24."""


class HeadTrial(NamedTuple):
    """The result of a trial.

    Attributes:
        scores: Scores of the validation images with the best head, which they chose.
        features: Features of the training images, `(images, channels)`.
        text: The settings of the best head.
        image_size: Height and width of the network's input, in pixels.
        seconds_per_image: Seconds of reading an image and of the network's forward pass; None if all features
            were cached.
    """

    scores: dict[str, Any]
    features: np.ndarray
    text: str
    image_size: int
    seconds_per_image: float | None


def train_heads(resolved: ResolvedRun, workdir: Path, progress: Progress) -> HeadTrial:
    """Trains a sweep of linear heads, and writes the best one as a model with its validation predictions.

    Args:
        resolved: The images and the network; the schedule is not used.
        workdir: The folder of the trial.
        progress: Receives the progress of the extraction.
    """
    resolved = resolved.with_settings(schedule=feature_extraction())
    run = load_network(resolved, workdir)
    parts = run.parts(0)
    extractor = FeatureExtractor(run, PRE_LOGITS, run.arrays)
    found = [
        extractor.extract(part, progress, f"{run.config.model}: features of {name} images")
        for part, name in ((run.train, "training"), (run.evaluation, "validation"))
    ]
    train, validation = (
        np.asarray(each.cache.gather(np.arange(len(each.cache)))["features"], np.float32) for each in found
    )
    grid = GRID if run.task.probabilistic else dataclasses.replace(GRID, label_smoothings=(0.0,))
    sweep = sweep_heads(
        Examples(train, run.train.labels, run.train.weights),
        Examples(validation, run.evaluation.labels, run.evaluation.weights),
        run.task,
        grid,
        dropout=run.config.dropout or 0.0,
    )
    best = min(sweep.candidates, key=lambda each: each.loss)
    arrays = {**run.arrays, **jax.device_put(dict(best.arrays))}
    evaluate = jax.jit(PhasePrograms(run, parts).functions["evaluate"])
    batches = ordered_batches(
        lambda rows: {"features": validation[rows]}, len(validation), batch_size=run.batch_size
    )
    predictions = predict(evaluate, arrays, batches, run.task)
    write_artifacts(run, {path: np.asarray(array) for path, array in arrays.items()}, predictions)
    scores = run.task.scores(predictions, run.evaluation.labels, run.evaluation.weights)
    text = f"head, rate {best.learning_rate:g}, decay {best.weight_decay:g}, {best.epoch} epochs"
    computed = extractor.extracted
    each = extractor.extract_seconds / computed if computed else None
    return HeadTrial(scores, train, text, run.preprocessing.image_size, each)
