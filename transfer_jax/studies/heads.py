"""Which head is best? A grid of them on features that are extracted once."""

import csv
import dataclasses
import io
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from transfer_jax.config import TrainConfig
from transfer_jax.data import ImageDataset, stratified_split
from transfer_jax.files import write_text
from transfer_jax.models import PRE_LOGITS
from transfer_jax.report.progress import Progress
from transfer_jax.training.evaluate import evaluation_metrics
from transfer_jax.training.inputs import Extractor
from transfer_jax.training.run import Run, prepare
from transfer_jax.training.sweep import Examples, HeadGrid, Sweep, SweptHead, sweep_heads
from transfer_jax.training.workdir import check_place
from transfer_jax.weights.saved import SavedModel

BASELINE_CS = (1e-3, 1e-2, 1e-1, 1.0)
"""Inverse strengths of the baseline's regularization, the best of which is taken."""


@dataclasses.dataclass(frozen=True)
class HeadSearch:
    """What a search found.

    Attributes:
        sweep: All heads with their scores on the validation images.
        seconds: Time to train them, compiling left out.
        metrics: Scores of the best on the held-out images, which decided nothing.
        baseline: The best C of a logistic regression, and its accuracy on the validation images.
    """

    sweep: Sweep
    seconds: float
    metrics: dict[str, Any]
    baseline: tuple[float, float]


def search_heads(
    config: TrainConfig,
    workdir: Path,
    grid: HeadGrid,
    *,
    validation_fraction: float = 0.25,
    epochs: int = 100,
    patience: int = 10,
    progress: Progress,
) -> HeadSearch:
    """Trains a grid of heads on the frozen base, and writes the best one as a model, and `heads.csv`.

    A part of the training images decides; the images held out are only scored in the end.

    Args:
        config: Which images, network and preprocessing; its schedule is not used.
        workdir: Where to write.
        grid: The heads.
        validation_fraction: Share of the training images that decides.
        epochs: Epochs at most.
        patience: Epochs without a gain after which a head stops.
        progress: Where to report to.

    Raises:
        ValueError: If the config has hidden layers, or the folder belongs to a training run.
    """
    if config.hidden:
        raise ValueError(f"the heads of a sweep are linear, got hidden={config.hidden}")
    check_place(config, workdir)
    if (workdir / "config.json").exists():
        raise ValueError(f"{workdir} is the folder of a training run; choose another with --workdir")
    run = prepare(config, workdir, progress)
    extractor = Extractor(run, PRE_LOGITS, run.arrays)
    caches = [
        extractor(part, progress, f"extracting {name} features").cache
        for part, name in ((run.train, "training"), (run.evaluation, "evaluation"))
    ]
    features, held_out = (np.asarray(cache.gather(np.arange(len(cache))), np.float32) for cache in caches)
    rows = {name: row for row, name in enumerate(run.train.names)}
    train, validation = (
        _examples(features[[rows[name] for name in part.names]], part)
        for part in stratified_split(run.train, validation_fraction, config.seed)
    )
    count = len(grid.settings()) * len(grid.seeds)
    progress.say(f"training {count} heads on {len(train.labels)} images; {len(validation.labels)} decide")
    started = time.perf_counter()
    sweep = sweep_heads(
        train,
        validation,
        len(run.train.class_names),
        grid,
        epochs=epochs,
        patience=patience,
        dropout=config.dropout or 0.0,
    )
    seconds = time.perf_counter() - started - sweep.compile_seconds
    best = sweep.heads[0]
    _save(run, best)
    write_text(workdir / "heads.csv", _csv(sweep))
    probabilities = np.asarray(jax.nn.softmax(held_out @ best.kernel + best.bias))
    truth = run.evaluation
    metrics = evaluation_metrics(probabilities, truth.labels, truth.class_names, truth.weights)
    return HeadSearch(sweep, seconds, metrics, logistic_regression(train, validation))


def logistic_regression(train: Examples, validation: Examples) -> tuple[float, float]:
    """The best C of scikit-learn (L-BFGS, standardized features), and its validation accuracy."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(train.features)
    known, asked = (scaler.transform(each.features) for each in (train, validation))
    found = []
    for c in BASELINE_CS:
        model = LogisticRegression(C=c, max_iter=1000)
        model.fit(known, train.labels, sample_weight=train.weights)
        found.append((float(model.score(asked, validation.labels, sample_weight=validation.weights)), c))
    accuracy, c = max(found)
    return c, accuracy


def _examples(features: np.ndarray, dataset: ImageDataset) -> Examples:
    return Examples(features, dataset.labels, dataset.weights)


def _save(run: Run, head: SweptHead) -> None:
    saved = SavedModel(
        model=run.config.model,
        class_names=run.train.class_names,
        preprocessing=run.preprocessing,
        taps=run.config.taps,
    )
    trained = {f"head/classifier/{name}": jnp.asarray(getattr(head, name)) for name in ("kernel", "bias")}
    saved.save(run.workdir / "model", {**run.arrays, **trained})


def _csv(sweep: Sweep) -> str:
    """A line for each head, best first, without its arrays."""
    names = [field.name for field in dataclasses.fields(SweptHead) if field.repr]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([getattr(head, name) for name in names] for head in sweep.heads)
    return text.getvalue()
