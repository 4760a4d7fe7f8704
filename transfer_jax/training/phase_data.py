"""The batches that the steps of a phase train on: images, or cached features of the frozen prefix."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from transfer_jax.data import (
    Batches,
    ImageDataset,
    augmented_image_fetch,
    image_fetch,
    ordered_batches,
    shuffled_batches,
)
from transfer_jax.data.fetch import Unaugmented
from transfer_jax.data.order import Order
from transfer_jax.data.pipeline import RandomFetch
from transfer_jax.data.readers import Readers
from transfer_jax.distributed import processes
from transfer_jax.features import DeviceFeatureCache, Tier, choose_tier
from transfer_jax.freezing.phase import Phase
from transfer_jax.models.flat_arrays import Arrays
from transfer_jax.report.progress import Progress
from transfer_jax.training.feature_extractor import CachedFeatures, FeatureExtractor
from transfer_jax.training.feature_order import shard_order
from transfer_jax.training.run import Run


@dataclasses.dataclass(frozen=True)
class PhaseData:
    """The data of a phase.

    Attributes:
        start: The boundary at which `features` were taken; None for images.
        train: Endless training batches.
        evaluate: Returns the batches of the validation images, in order.
        evaluate_training: Returns the batches of the training images, in order and without augmentation.
        evaluate_test: Returns the batches of the test images, in order; features are computed if needed.
        complete: Adds features that are stored on the device to a training batch.
        tier: Where the features are kept; None for images.
        extracted: Number of feature rows that were computed.
        extract_seconds: Seconds spent computing them, without compiling.
        compile_seconds: Seconds spent compiling the prefix.
    """

    start: str | None
    train: Batches
    evaluate: Callable[[], Iterable[Mapping[str, Any]]]
    evaluate_training: Callable[[], Iterable[Mapping[str, Any]]]
    evaluate_test: Callable[[], Iterable[Mapping[str, Any]]]
    complete: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda batch: batch
    tier: Tier | None = None
    extracted: int = 0
    extract_seconds: float = 0.0
    compile_seconds: float = 0.0


def make_phase_data(
    run: Run, phase: Phase, boundary: str | None, arrays: Arrays, seed: int, progress: Progress
) -> PhaseData:
    """Returns the data of a phase: cached features where the phase allows and can use them, else images.

    Args:
        run: The run.
        phase: The phase.
        boundary: End of its frozen prefix; None if there is none.
        arrays: All arrays of the model at the start of the phase.
        seed: Seed of the order and the augmentation.
        progress: Receives the progress of the feature extraction.

    Raises:
        ValueError: If the phase requires a cache but cannot have one.
    """
    caching = run.caching(phase, boundary)
    if caching.boundary is not None:
        return _cached(run, phase, caching.boundary, arrays, seed, progress)
    if caching.bytes and phase.cache == "auto":
        progress.log(f"phase {phase.name!r} trains on images: {caching.reason}")
    return _images(run, phase, seed)


def training_fetch(run: Run, phase: Phase) -> RandomFetch:
    """Returns the function that reads the training images of a phase, augmented if the phase does so."""
    images = run.train.in_pieces() if run.config.order == "blocks" else run.train
    if phase.augment:
        return augmented_image_fetch(images, run.preprocessing, run.config.augmentation)
    return Unaugmented(image_fetch(images, run.preprocessing))


def _images(run: Run, phase: Phase, seed: int) -> PhaseData:
    """Returns the data of a phase that trains on images."""
    fetch = training_fetch(run, phase)
    return PhaseData(
        start=None,
        train=_shuffled(run, fetch, seed, run.config.order, run.readers(fetch)),
        evaluate=lambda: _ordered_images(run.evaluation, run),
        evaluate_training=lambda: _ordered_images(run.train, run),
        evaluate_test=lambda: _ordered_images(_test_images(run), run),
    )


def _cached(
    run: Run, phase: Phase, boundary: str, arrays: Arrays, seed: int, progress: Progress
) -> PhaseData:
    """Returns the data of a phase that trains on cached features."""
    extractor = FeatureExtractor(run, boundary, arrays)
    augmentation = run.config.augmentation if phase.augment else None
    task = "extracting training features"
    if augmentation is None:
        train = extractor.features(run.train, progress, task)
    else:
        views = extractor.extract(run.train, progress, task, augmentation, phase.views, seed)
        train = CachedFeatures(views.cache, np.arange(len(run.train)))
    validation = extractor.features(run.evaluation, progress, "extracting validation features")
    order = shard_order(run, train, seed, phase.views if augmentation else 0)
    if order is not None and run.config.feature_tier in ("auto", "disk"):
        tier: Tier = "disk"
        progress.log("features in object storage are shuffled a few files at a time, and read once an epoch")
    else:
        order, tier = None, tier_of(run, train.cache.manifest.bytes)
    images = len(run.train)
    if tier == "memory":
        train.cache.read()
    columns = DeviceFeatureCache(train.cache).columns if tier == "device" else None

    def fetch(indices: np.ndarray, places: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
        views = rng.integers(phase.views, size=run.batch_size)[places] if phase.views else 0
        rows = views * images + train.rows[indices]
        features = train.cache.columns(rows) if columns is None else {"row": rows}
        return {**features, **run.train.labels_and_weights(indices)}

    def plain() -> CachedFeatures:
        """Returns the training features without augmentation, which are computed if there are none yet."""
        return train if augmentation is None else extractor.features(run.train, progress, task)

    def test() -> CachedFeatures:
        return extractor.features(_test_images(run), progress, "extracting test features")

    def complete(batch: Mapping[str, Any]) -> Mapping[str, Any]:
        return batch if columns is None else {**batch, **columns(batch["row"])}

    return PhaseData(
        start=boundary,
        train=_shuffled(run, fetch, seed, order or "global", Readers(run.config.threads or 2, 0)),
        evaluate=lambda: _ordered_features(validation, run),
        evaluate_training=lambda: _ordered_features(plain(), run),
        evaluate_test=lambda: _ordered_features(test(), run),
        complete=complete,
        tier=tier,
        extracted=extractor.extracted,
        extract_seconds=extractor.extract_seconds,
        compile_seconds=extractor.compile_seconds,
    )


def tier_of(run: Run, bytes: int) -> Tier:
    """Returns where features of a size are kept while a phase trains on them.

    Raises:
        ValueError: If the config asks for the device, but the run uses several.
    """
    tier, one_device = run.config.feature_tier, run.strategy.mesh is None
    if tier == "device" and not one_device:
        raise ValueError("feature_tier='device' needs strategy='jit': each device would hold all features")
    return choose_tier(bytes, device=one_device) if tier == "auto" else tier


def _test_images(run: Run) -> ImageDataset:
    if run.test is None:
        raise ValueError("the run has no test images; set test_fraction (--test-fraction)")
    return run.test


def _ordered_images(dataset: ImageDataset, run: Run) -> Iterable[Mapping[str, Any]]:
    fetch = image_fetch(dataset.in_pieces(), run.preprocessing)
    size, rows = run.batch_size, run.strategy.rows(run.batch_size)
    threads, workers = run.readers(fetch, len(dataset))
    return ordered_batches(fetch, len(dataset), batch_size=size, rows=rows, threads=threads, workers=workers)


def _ordered_features(features: CachedFeatures, run: Run) -> Iterable[Mapping[str, Any]]:
    size, rows = run.batch_size, run.strategy.rows(run.batch_size)
    fetch = lambda indices: features.cache.columns(features.rows[indices])  # noqa: E731
    threads = 8 if features.cache.is_remote else 2  # They wait for object storage.
    return ordered_batches(fetch, len(features.rows), batch_size=size, rows=rows, threads=threads)


def _shuffled(
    run: Run, fetch: Any, seed: int, order: Order | Sequence[np.ndarray], readers: Readers
) -> Batches:
    return shuffled_batches(
        fetch,
        len(run.train),
        batch_size=run.batch_size,
        seed=seed,
        rows=run.strategy.rows(run.batch_size),
        threads=readers.threads,
        workers=readers.workers,
        order=order,
        readers=processes.count(),
    )
