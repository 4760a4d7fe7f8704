"""What the steps of a phase are fed: live images, or features that the frozen prefix gave once."""

import dataclasses
import functools
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
    ordered_batches,
    shuffled_batches,
    view_fetch,
)
from transfer_jax.features import Extraction, FeatureCache, FeatureKey, extract, make_prefix, prefix_arrays
from transfer_jax.freezing.phase import Phase
from transfer_jax.freezing.proof import fingerprint
from transfer_jax.models.functional import Arrays
from transfer_jax.report.progress import Progress
from transfer_jax.training.compile import Compiled, compile_function
from transfer_jax.training.run import Run, trains_on_features

EXTRACTION_BATCH = 32
"""Images the prefix is given at a time; fixed, so that runs of any batch size share their caches."""


@dataclasses.dataclass(frozen=True)
class Inputs:
    """The data of a phase.

    Attributes:
        start: The boundary that `features` were taken at; None for live images.
        train: Endless training batches.
        evaluate: Makes the batches of the held-out images, in order.
        extracted: Rows of features that had to be computed.
        extract_seconds: Time that took.
        compile_seconds: Time to compile the prefix.
    """

    start: str | None
    train: Batches
    evaluate: Callable[[], Iterable[Mapping[str, Any]]]
    extracted: int = 0
    extract_seconds: float = 0.0
    compile_seconds: float = 0.0


def phase_inputs(
    run: Run, phase: Phase, boundary: str | None, arrays: Arrays, seed: int, progress: Progress
) -> Inputs:
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
    if not trains_on_features(run.config, phase, boundary) or boundary is None:
        return _live(run, phase, seed)
    return _cached(run, phase, boundary, arrays, seed, progress)


def _live(run: Run, phase: Phase, seed: int) -> Inputs:
    plain = image_fetch(run.train, run.preprocessing)
    if phase.augment:
        fetch = augmented_image_fetch(run.train, run.preprocessing, run.config.augmentation)
    else:
        fetch = lambda indices, rng: plain(indices)  # noqa: E731
    return Inputs(
        start=None,
        train=_shuffled(run, fetch, seed),
        evaluate=lambda: image_batches(run.evaluation, run),
    )


def _cached(run: Run, phase: Phase, boundary: str, arrays: Arrays, seed: int, progress: Progress) -> Inputs:
    extractor = Extractor(run, boundary, arrays)
    augmentation = run.config.augmentation if phase.augment else None
    train = extractor(run.train, progress, "extracting training features", augmentation, phase.views, seed)
    held_out = extractor(run.evaluation, progress, "extracting evaluation features")
    images = len(run.train)

    def fetch(indices: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
        views = rng.integers(phase.views, size=len(indices)) if phase.views else 0
        return {
            "features": train.cache.gather(views * images + indices),
            **run.train.of_rows(indices),
        }

    return Inputs(
        start=boundary,
        train=_shuffled(run, fetch, seed),
        evaluate=lambda: _feature_batches(held_out.cache, run.batch_size),
        extracted=train.rows + held_out.rows,
        extract_seconds=train.seconds + held_out.seconds,
        compile_seconds=extractor.compile_seconds,
    )


class Extractor:
    """The frozen prefix up to a boundary, ready to be run over datasets.

    Args:
        run: Which network, preprocessing, precision and folder.
        boundary: Where the prefix ends.
        arrays: All arrays of the model.
    """

    def __init__(self, run: Run, boundary: str, arrays: Arrays) -> None:
        self._run = run
        self._boundary = boundary
        self._arrays = prefix_arrays(arrays, boundary, run.block_names)
        self._weights = fingerprint(self._arrays)
        self._rest = arrays
        self._compiled: Compiled | None = None

    @property
    def compile_seconds(self) -> float:
        """Time that compiling took; 0 if everything was on disk."""
        return self._compiled.seconds if self._compiled else 0.0

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
            weights=self._weights,
            boundary=self._boundary,
            preprocessing=dataclasses.asdict(run.preprocessing),
            dtype=run.config.precision,
            dataset=dataset.fingerprint,
            augmentation=dataclasses.asdict(augmentation) if augmentation else None,
            views=views or 1,
            seed=seed if augmentation else 0,
        )
        rows = len(dataset) * (views or 1)
        if augmentation:
            fetch = view_fetch(dataset, run.preprocessing, augmentation, seed)
        else:
            fetch = image_fetch(dataset, run.preprocessing)

        def features(start: int) -> Iterator[np.ndarray]:
            prefix = self._compile()
            batches = ordered_batches(
                fetch, rows, batch_size=EXTRACTION_BATCH, start=start, threads=run.config.threads
            )
            for batch in batches:
                yield np.asarray(prefix(self._rest, batch["image"]))

        progress.start(task, rows)
        extraction = extract(
            key,
            rows=rows,
            batch_size=EXTRACTION_BATCH,
            row_shape=self._row_shape,
            batches=features,
            labels=np.tile(dataset.labels, views or 1),
            root=run.feature_root,
            advance=progress.advance,
        )
        progress.finish()
        return extraction

    @functools.cached_property
    def _row_shape(self) -> tuple[int, ...]:
        return _features_shape(self._run, self._boundary).shape[1:]

    def _compile(self) -> Compiled:
        if self._compiled is None:
            self._compiled = compile_prefix(self._run, self._boundary, self._rest)
        return self._compiled


def compile_prefix(run: Run, boundary: str, arrays: Arrays) -> Compiled:
    """Compiles the frozen prefix up to a boundary, for `EXTRACTION_BATCH` images at a time."""
    prefix = make_prefix(run.graphdef, boundary, run.preprocessing, run.dtype)
    return compile_function(prefix, arrays, _images_shape(run, EXTRACTION_BATCH))


def batch_shapes(run: Run, start: str | None) -> dict[str, jax.ShapeDtypeStruct]:
    """The shapes of a training batch, of the features at the boundary `start` or else of images."""
    size = run.batch_size
    found = {"label": jax.ShapeDtypeStruct((size,), jnp.int32)}
    if run.train.weights is not None:
        found["weight"] = jax.ShapeDtypeStruct((size,), jnp.float32)
    if start is None:
        return {**found, "image": _images_shape(run, size)}
    features = _features_shape(run, start)
    return {**found, "features": jax.ShapeDtypeStruct((size, *features.shape[1:]), features.dtype)}


def _images_shape(run: Run, count: int) -> jax.ShapeDtypeStruct:
    side = run.preprocessing.image_size
    return jax.ShapeDtypeStruct((count, side, side, 3), jnp.uint8)


def _features_shape(run: Run, boundary: str) -> jax.ShapeDtypeStruct:
    prefix = make_prefix(run.graphdef, boundary, run.preprocessing, run.dtype)
    return jax.eval_shape(prefix, run.arrays, _images_shape(run, EXTRACTION_BATCH))


def image_batches(dataset: ImageDataset, run: Run) -> Iterable[Mapping[str, Any]]:
    """All images of a dataset in order, as evaluation sees them."""
    fetch = image_fetch(dataset, run.preprocessing)
    return ordered_batches(fetch, len(dataset), batch_size=run.batch_size, threads=run.config.threads)


def _feature_batches(cache: FeatureCache, batch_size: int) -> Iterable[Mapping[str, Any]]:
    return ordered_batches(lambda rows: {"features": cache.gather(rows)}, len(cache), batch_size=batch_size)


def _shuffled(run: Run, fetch: Any, seed: int) -> Batches:
    return shuffled_batches(
        fetch, len(run.train), batch_size=run.batch_size, seed=seed, threads=run.config.threads
    )
