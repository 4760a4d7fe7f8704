"""The cost of a schedule from measurements of all phases.

Each phase is compiled and takes a few steps on a few of the images, at a learning rate of zero, in a
temporary folder. A phase with a controller is estimated with the blocks that are frozen at its start. The
program of the validation is not compiled: its time is that of a step, in proportion to its operations.
"""

import dataclasses
import math
import tempfile
import time
from pathlib import Path

import jax
import numpy as np

from transfer_jax.data import ImageDataset
from transfer_jax.nn.flops import multiply_adds
from transfer_jax.planning.phase_cost import PhaseCost, new_rows, number_of_validations
from transfer_jax.planning.reading_speed import reading_speed
from transfer_jax.report.progress import Progress, Silent
from transfer_jax.training.cache_choice import Caching
from transfer_jax.training.feature_extractor import EXTRACTION_BATCH
from transfer_jax.training.forward import INPUTS
from transfer_jax.training.gradient_statistics import STATISTIC_BATCHES, multipliers
from transfer_jax.training.phase_data import tier_of
from transfer_jax.training.phase_measurements import measure_gradients
from transfer_jax.training.phase_split import PhaseSplit
from transfer_jax.training.phase_trainer import PhaseTrainer
from transfer_jax.training.run import Run

_EXTRACTED = 2 * EXTRACTION_BATCH
"""Number of images on which the frozen prefix is timed."""
_WARM_UP = 1
_LEAST_STEPS, _MOST_STEPS = 5, 50
_STEP_SECONDS = 0.5
"""Steps are timed for this many seconds, within the limits above."""


def measured_costs(run: Run, progress: Progress) -> tuple[PhaseCost, ...]:
    """Compiles and times each phase; see `estimate_costs`."""
    with tempfile.TemporaryDirectory() as scratch:
        run = dataclasses.replace(run, workdir=Path(scratch))
        few = _with_few_images(run)
        phases = [run.parts(index) for index in range(len(run.config.schedule.phases))]
        costs: list[PhaseCost] = []
        computed: set[tuple] = set()
        progress.start("calibrating phases", len(phases))
        for parts in phases:
            caching = run.caching(parts.phase, parts.boundary)
            rows = new_rows(run, caching, phases[: parts.index + 1], computed)
            costs.append(_cost(run, few, parts, caching, rows))
            progress.advance(1)
        progress.finish()
    return tuple(costs)


def _with_few_images(run: Run) -> Run:
    """Returns the run with only the images that it is timed on."""

    def few(dataset: ImageDataset, count: int) -> ImageDataset:
        return dataset.subset(np.linspace(0, len(dataset) - 1, min(count, len(dataset))).astype(int))

    return dataclasses.replace(
        run,
        # Some classes may have no image, and class weights do not change the time of a step.
        config=dataclasses.replace(run.config, class_weights="none", shared_features=False),
        train=few(run.train, max(run.batch_size, _EXTRACTED)),
        evaluation=few(run.evaluation, EXTRACTION_BATCH),
    )


def _cost(run: Run, few: Run, parts: PhaseSplit, caching: Caching, rows: int) -> PhaseCost:
    """Returns the cost of a phase, from a calibration."""
    cached = caching.boundary is not None
    tier = tier_of(run, caching.bytes) if cached else None
    phase = dataclasses.replace(
        parts.phase, cache="require" if cached else "off", views=min(parts.phase.views, 1)
    )
    features = run.workdir / f"features-{parts.index}"  # A new folder, so that the extraction is timed.
    config = dataclasses.replace(few.config, feature_dir=str(features), feature_tier=tier or "auto")
    few = dataclasses.replace(few, config=config)
    trainer = PhaseTrainer(few, dataclasses.replace(parts, phase=phase), run.arrays, Silent())
    data = trainer.data
    row_seconds = data.extract_seconds / max(data.extracted, 1)
    step_seconds, computing, measured = _timed(trainer)
    step = trainer.programs.step
    assert step is not None
    validations = number_of_validations(run, parts.phase)
    batches = math.ceil(len(run.evaluation) / run.batch_size)
    share = _evaluation_multiply_adds(trainer) / max(step.multiply_adds, 1)
    return PhaseCost(
        name=phase.name,
        measured=True,
        boundary=caching.boundary,
        reason=caching.reason,
        tier=tier,
        cache_bytes=caching.bytes if cached else 0,
        rows=rows,
        break_even=rows / len(run.train) if cached else None,
        step_flops=2 * step.multiply_adds,
        step_bytes=PhaseCost.traffic(step),
        peak_bytes=step.peak_bytes,
        optimizer_bytes=trainer.optimizer_bytes,
        programs=trainer.programs.count + 1 + (data.compile_seconds > 0),
        compile_seconds=trainer.compile_seconds,
        extract_seconds=rows * row_seconds,
        train_seconds=parts.steps * step_seconds + parts.phase.epochs * measured,
        images_needed=None if cached else run.batch_size / computing,
        images_read=None if cached else reading_speed(run, phase),
        validations=validations,
        validate_seconds=validations * batches * step_seconds * min(share, 1.0),
    )


def _evaluation_multiply_adds(trainer: PhaseTrainer) -> int:
    """Returns the multiply-adds of the evaluation of a batch, which is traced and not compiled."""
    batch = next(iter(trainer.data.train))
    inputs = trainer.run.strategy.batch({name: batch[name] for name in INPUTS if name in batch})
    return multiply_adds(trainer.programs.functions["evaluate"], trainer.evaluated_arrays(), inputs)


def _timed(trainer: PhaseTrainer) -> tuple[float, float, float]:
    """Returns the seconds of a step, of a step without waiting for images, and of an epoch's measurements."""
    parts, batches = trainer.parts, iter(trainer.data.train)
    scale, measured = None, 0.0
    if parts.phase.statistic != "none":
        found = measure_gradients(trainer, parts.rates(0), STATISTIC_BATCHES)
        started = time.perf_counter()
        measure_gradients(trainer, parts.rates(0), STATISTIC_BATCHES)
        measured = time.perf_counter() - started
        scale = multipliers(parts.phase.statistic, found)
    rates = jax.tree.map(lambda rate: np.float32(0), parts.rates(0, scale))
    for _ in range(1 + _WARM_UP):
        trainer.step(next(batches), rates)
    took: list[float] = []
    computing: list[float] = []
    while len(took) < _LEAST_STEPS or (sum(took) < _STEP_SECONDS and len(took) < _MOST_STEPS):
        started = time.perf_counter()
        batch = next(batches)
        read = time.perf_counter()
        trainer.step(batch, rates)
        took.append(time.perf_counter() - started)
        computing.append(time.perf_counter() - read)
    # A mean of so few steps would count pauses of a busy machine.
    return float(np.median(took)), float(np.median(computing)), measured
