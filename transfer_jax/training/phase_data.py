"""What the steps of a phase are fed: live images, or features that the frozen prefix gave once."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from transfer_jax.data import (
    Augmentation,
    Batches,
    ImageDataset,
    augmented_image_fetch,
    image_fetch,
    listed_batches,
    ordered_batches,
    shuffled_batches,
    view_fetch,
)
from transfer_jax.distributed import processes
from transfer_jax.features import (
    DeviceFeatures,
    Extraction,
    FeatureCache,
    FeatureKey,
    Layout,
    Pieces,
    RowFormat,
    Tier,
    choose_tier,
    extract,
    make_prefix,
    prefix_arrays,
)
from transfer_jax.freezing.freeze_check import digests, together
from transfer_jax.freezing.phase import Phase
from transfer_jax.models.flat_arrays import Arrays
from transfer_jax.report.progress import Progress
from transfer_jax.training.compile import Compiled, compile_function
from transfer_jax.training.run import Run
from transfer_jax.training.step import WISHES

EXTRACTION_BATCH = 32
"""Images the prefix is given at a time; fixed, so that runs of any batch size share their caches."""


@dataclasses.dataclass(frozen=True)
class PhaseData:
    """The data of a phase.

    Attributes:
        start: The boundary that `features` were taken at; None for live images.
        train: Endless training batches.
        evaluate: Makes the batches of the held-out images, in order.
        evaluate_training: Makes those of the training images likewise, without augmentation.
        complete: Adds to a training batch what is not read in threads: features that are on the device.
        tier: Where the features are kept; None for live images.
        extracted: Rows of features that had to be computed.
        extract_seconds: Time that took.
        compile_seconds: Time to compile the prefix.
    """

    start: str | None
    train: Batches
    evaluate: Callable[[], Iterable[Mapping[str, Any]]]
    evaluate_training: Callable[[], Iterable[Mapping[str, Any]]]
    complete: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda batch: batch
    tier: Tier | None = None
    extracted: int = 0
    extract_seconds: float = 0.0
    compile_seconds: float = 0.0


def make_phase_data(
    run: Run, phase: Phase, boundary: str | None, arrays: Arrays, seed: int, progress: Progress
) -> PhaseData:
    """The inputs of a phase: features where it may and can be cached, else images.

    Args:
        run: The run.
        phase: The phase.
        boundary: End of its frozen prefix; None if there is none.
        arrays: All arrays of the model as the phase starts.
        seed: Seed of order and augmentation.
        progress: Where the extraction reports to.

    Raises:
        ValueError: If the phase requires a cache that cannot be.
    """
    caching = run.caching(phase, boundary)
    if caching.boundary is not None:
        return _cached(run, phase, caching.boundary, arrays, seed, progress)
    if caching.bytes and phase.cache == "auto":
        progress.say(f"phase {phase.name!r} trains on images: {caching.reason}")
    return _live(run, phase, seed)


def _live(run: Run, phase: Phase, seed: int) -> PhaseData:
    plain = image_fetch(run.train, run.preprocessing)
    if phase.augment:
        fetch = augmented_image_fetch(run.train, run.preprocessing, run.config.augmentation)
    else:
        fetch = lambda indices, places, rng: plain(indices)  # noqa: E731
    return PhaseData(
        start=None,
        train=_shuffled(run, fetch, seed),
        evaluate=lambda: image_batches(run.evaluation, run),
        evaluate_training=lambda: image_batches(run.train, run),
    )


def _cached(
    run: Run, phase: Phase, boundary: str, arrays: Arrays, seed: int, progress: Progress
) -> PhaseData:
    extractor = Extractor(run, boundary, arrays)
    augmentation = run.config.augmentation if phase.augment else None
    task = "extracting training features"
    if augmentation is None:
        train = extractor.part(run.train, progress, task)
    else:
        views = extractor(run.train, progress, task, augmentation, phase.views, seed)
        train = Part(views, np.arange(len(run.train)))
    held_out = extractor.part(run.evaluation, progress, "extracting evaluation features")
    images, tier = len(run.train), tier_of(run, train.cache.manifest.bytes)
    if tier == "memory":
        train.cache.read()
    columns = DeviceFeatures(train.cache).columns if tier == "device" else None

    def fetch(indices: np.ndarray, places: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
        views = rng.integers(phase.views, size=run.batch_size)[places] if phase.views else 0
        rows = views * images + train.rows[indices]
        features = train.cache.columns(rows) if columns is None else {"row": rows}
        return {**features, **run.train.of_rows(indices)}

    def plain() -> Part:
        """The training features without augmentation; computed when they are asked for."""
        return train if augmentation is None else extractor.part(run.train, progress, task)

    def complete(batch: Mapping[str, Any]) -> Mapping[str, Any]:
        return batch if columns is None else {**batch, **columns(batch["row"])}

    return PhaseData(
        start=boundary,
        train=_shuffled(run, fetch, seed),
        evaluate=lambda: _feature_batches(held_out, run),
        evaluate_training=lambda: _feature_batches(plain(), run),
        complete=complete,
        tier=tier,
        extracted=sum(each.rows for each in extractor.done),
        extract_seconds=sum(each.seconds for each in extractor.done),
        compile_seconds=extractor.compile_seconds,
    )


def tier_of(run: Run, bytes: int) -> Tier:
    """Where features of that size are kept while a phase trains on them; on the device only if it is one."""
    wish, one = run.config.feature_tier, run.strategy.mesh is None
    if wish == "device" and not one:
        raise ValueError("feature_tier='device' needs strategy='jit': each device would hold all features")
    return choose_tier(bytes, device=one) if wish == "auto" else wish


@dataclasses.dataclass(frozen=True)
class Part:
    """The features of a dataset among those of a cache.

    Attributes:
        extraction: The cache.
        rows: `(images,)`, where they are in it.
    """

    extraction: Extraction
    rows: np.ndarray

    @property
    def cache(self) -> FeatureCache:
        """The cache."""
        return self.extraction.cache


class Extractor:
    """The frozen prefix up to a boundary, ready to be run over datasets.

    Args:
        run: Which network, preprocessing, precision and folder.
        boundary: Where the prefix ends.
        arrays: All arrays of the model.

    Attributes:
        done: The extractions so far.
    """

    def __init__(self, run: Run, boundary: str, arrays: Arrays) -> None:
        self.done: list[Extraction] = []
        self._shared: Extraction | None = None
        self._run = run
        self._boundary = boundary
        self._digests = digests(arrays)
        self._local = run.strategy.local()
        self._arrays = self._local.place(arrays)
        self._compiled: dict[str | None, Compiled] = {}

    @property
    def compile_seconds(self) -> float:
        """Time that compiling took; 0 if everything was on disk."""
        return sum(each.seconds for each in self._compiled.values())

    def part(self, dataset: ImageDataset, progress: Progress, task: str) -> Part:
        """The features of a part of the images; with `shared_features` among those of all of them."""
        if not self._run.config.shared_features or dataset.whole is None or dataset.rows is None:
            return Part(self(dataset, progress, task), np.arange(len(dataset)))
        self._shared = self._shared or self(dataset.whole, progress, "extracting features")
        return Part(self._shared, dataset.rows)

    def __call__(
        self,
        dataset: ImageDataset,
        progress: Progress,
        task: str,
        augmentation: Augmentation | None = None,
        views: int = 0,
        seed: int = 0,
    ) -> Extraction:
        """Completes the features of a dataset on disk, of plain images or of augmented views."""
        run = self._run
        key = FeatureKey(
            weights=self._fingerprint(self._boundary),
            boundary=self._boundary,
            preprocessing=dataclasses.asdict(run.preprocessing),
            dtype=str(run.prefix_dtype),
            dataset=dataset.fingerprint,
            augmentation=dataclasses.asdict(augmentation) if augmentation else None,
            views=views or 1,
            seed=seed if augmentation else 0,
            stored=run.stored,
        )
        rows = len(dataset) * (views or 1)
        lower = run.block_names[: run.block_names.index(self._boundary)]
        origin = None if run.config.shared_features else run.features.origin(key, lower, self._fingerprint)
        start = None if origin is None else origin.boundary
        if origin is not None:
            fetch = lambda rows: {"image": origin.gather(rows)}  # noqa: E731
        elif augmentation:
            fetch = view_fetch(dataset, run.preprocessing, augmentation, seed)
        else:
            fetch = image_fetch(dataset, run.preprocessing)

        def features(pieces: Pieces) -> Iterator[np.ndarray]:
            prefix, size = self._compile(start), EXTRACTION_BATCH * self._local.count

            def computed(rows: np.ndarray) -> dict[str, np.ndarray]:
                filled = np.pad(rows, (0, size - len(rows)), mode="edge")
                batch = self._local.batch({"image": fetch(filled)["image"]})
                return {"features": np.asarray(prefix(self._arrays, batch["image"]))[: len(rows)]}

            lists = [
                np.arange(at, min(at + size, last))
                for first, last in pieces
                for at in range(first, last, size)
            ]
            # Computed by the threads that read, for one program at a time leaves some of a CPU idle.
            for batch in listed_batches(computed, lists, threads=run.config.threads):
                yield batch["features"]

        progress.start(task, rows)
        extraction = extract(
            key,
            Layout(rows, EXTRACTION_BATCH, run.row_shapes[self._boundary], start),
            features,
            np.tile(dataset.labels, views or 1),
            run.features,
            advance=progress.advance,
            say=progress.say,
        )
        progress.finish()
        self.done.append(extraction)
        if extraction.rows and extraction.cache.error:
            progress.say(f"features stored in {run.stored} are off by {extraction.cache.error:.2%} (RMS)")
        return extraction

    def _fingerprint(self, boundary: str) -> str:
        return together(prefix_arrays(self._digests, boundary, self._run.block_names))

    def _compile(self, start: str | None) -> Compiled:
        if start not in self._compiled:
            self._compiled[start] = compile_prefix(self._run, self._boundary, self._arrays, start)
        return self._compiled[start]


def compile_prefix(run: Run, boundary: str, arrays: Arrays, start: str | None = None) -> Compiled:
    """Compiles the frozen prefix from `start` or the images to a boundary.

    Args:
        run: The run.
        boundary: Where the prefix ends.
        arrays: All arrays of the model, on the devices of this process; each takes `EXTRACTION_BATCH` images
            at a time.
        start: A lower boundary, whose features are given instead of images.
    """
    prefix = make_prefix(run.graphdef, boundary, run.preprocessing, run.prefix_dtype, start=start)
    local = run.strategy.local()
    count = EXTRACTION_BATCH * local.count
    shape = _images_shape(run, count) if start is None else _features_shape(run, count, start)
    inputs = local.batch({"image": shape})["image"]
    return compile_function(local.each(prefix, whole=False), arrays, inputs, strategy=local, batch=1)


def batch_shapes(run: Run, start: str | None) -> dict[str, jax.ShapeDtypeStruct]:
    """The shapes of a training batch, of the features at the boundary `start` or else of images."""
    size = run.batch_size
    found = {"label": jax.ShapeDtypeStruct((size,), jnp.int32)}
    if run.train.weights is not None:
        found["weight"] = jax.ShapeDtypeStruct((size,), jnp.float32)
    if processes.count() > 1:
        found |= {name: jax.ShapeDtypeStruct((size,), jnp.float32) for name in WISHES}
    if start is None:
        return {**found, "image": _images_shape(run, size)}
    row = RowFormat(run.row_shapes[start], run.stored or str(run.prefix_dtype))
    return {**found, **row.column_shapes(size)}


def _images_shape(run: Run, count: int) -> jax.ShapeDtypeStruct:
    side = run.preprocessing.image_size
    return jax.ShapeDtypeStruct((count, side, side, 3), jnp.uint8)


def _features_shape(run: Run, count: int, boundary: str) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((count, *run.row_shapes[boundary]), run.prefix_dtype)


def image_batches(dataset: ImageDataset, run: Run) -> Iterable[Mapping[str, Any]]:
    """All images of a dataset in order, as evaluation sees them."""
    fetch = image_fetch(dataset, run.preprocessing)
    size, rows = run.batch_size, run.strategy.rows(run.batch_size)
    return ordered_batches(fetch, len(dataset), batch_size=size, rows=rows, threads=run.config.threads)


def _feature_batches(part: Part, run: Run) -> Iterable[Mapping[str, Any]]:
    size, rows = run.batch_size, run.strategy.rows(run.batch_size)
    fetch = lambda indices: part.cache.columns(part.rows[indices])  # noqa: E731
    return ordered_batches(fetch, len(part.rows), batch_size=size, rows=rows)


def _shuffled(run: Run, fetch: Any, seed: int) -> Batches:
    return shuffled_batches(
        fetch,
        len(run.train),
        batch_size=run.batch_size,
        seed=seed,
        rows=run.strategy.rows(run.batch_size),
        threads=run.config.threads,
    )
