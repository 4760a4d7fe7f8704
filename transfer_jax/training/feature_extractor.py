"""Extraction of a run's features at a boundary into its caches."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from transfer_jax.data import Augmentation, ImageDataset, image_fetch, listed_batches, view_fetch
from transfer_jax.data.pipeline import Batch, Fetch
from transfer_jax.features import (
    Extraction,
    FeatureCache,
    FeatureKey,
    Layout,
    RowRanges,
    make_prefix,
    prefix_arrays,
    write_shards,
)
from transfer_jax.freezing.freeze_check import array_hashes, combined_hash
from transfer_jax.models.flat_arrays import Arrays, merge
from transfer_jax.report.progress import Progress
from transfer_jax.training.compile import Compiled, compile_function
from transfer_jax.training.forward import INPUTS
from transfer_jax.training.input_shapes import input_shapes
from transfer_jax.training.int8_prefix import calibrate, calibration_rows
from transfer_jax.training.run import Run

EXTRACTION_BATCH = 32
"""Images that the prefix computes at a time; fixed, so that runs of any batch size use the same caches."""


@dataclasses.dataclass(frozen=True)
class CachedFeatures:
    """The features of a dataset in a cache, which may hold those of more images.

    Attributes:
        cache: The cache.
        rows: Row of each image in the cache, `(images,)`.
    """

    cache: FeatureCache
    rows: np.ndarray


class FeatureExtractor:
    """The frozen prefix up to a boundary, which computes the features of datasets.

    Args:
        run: The run: network, preprocessing, precision and feature folder.
        boundary: End of the prefix.
        arrays: All arrays of the model.
    """

    def __init__(self, run: Run, boundary: str, arrays: Arrays) -> None:
        self._extractions: list[Extraction] = []
        self._parent: Extraction | None = None
        self._run = run
        self._boundary = boundary
        self._hashes = array_hashes(arrays)
        self._backbone = merge(run.graphdef, arrays).backbone
        self._local = run.strategy.local()
        self._arrays = self._local.place(arrays)
        self._is_calibrated = False
        self._compiled: dict[str | None, Compiled] = {}

    @property
    def extracted(self) -> int:
        """Number of feature rows computed so far."""
        return sum(each.rows for each in self._extractions)

    @property
    def extract_seconds(self) -> float:
        """Seconds spent on extractions so far, without compiling."""
        return sum(each.seconds for each in self._extractions) - self.compile_seconds

    @property
    def compile_seconds(self) -> float:
        """Seconds spent compiling so far; 0 if everything was on disk."""
        return sum(each.seconds for each in self._compiled.values())

    def features(self, dataset: ImageDataset, progress: Progress, task: str) -> CachedFeatures:
        """Returns the features of a dataset without augmentation.

        With `shared_features` they are rows in the cache of the dataset that this one is a part of.
        """
        if not self._run.config.shared_features or dataset.parent is None or dataset.rows is None:
            return CachedFeatures(self.extract(dataset, progress, task).cache, np.arange(len(dataset)))
        self._parent = self._parent or self.extract(dataset.parent, progress, "extracting features")
        return CachedFeatures(self._parent.cache, dataset.rows)

    def extract(
        self,
        dataset: ImageDataset,
        progress: Progress,
        task: str,
        augmentation: Augmentation | None = None,
        views: int = 0,
        seed: int = 0,
    ) -> Extraction:
        """Completes the cached features of a dataset on disk.

        Args:
            dataset: The images.
            progress: Receives the number of rows computed.
            task: Name of the extraction in the progress.
            augmentation: Augmentation of the images; None for none.
            views: Augmented views of each image; 0 without augmentation.
            seed: Seed of the augmentation.
        """
        run = self._run
        key = FeatureKey(
            weights=self._fingerprint(self._boundary),
            boundary=self._boundary,
            preprocessing=dataclasses.asdict(run.preprocessing),
            dtype=self._precision(),
            dataset=dataset.fingerprint,
            augmentation=dataclasses.asdict(augmentation) if augmentation else None,
            views=views or 1,
            seed=seed if augmentation else 0,
            stored=run.stored,
        )
        rows = len(dataset) * (views or 1)
        lower = self._backbone.startable(self._boundary)
        origin = None if run.config.shared_features else run.features.origin(key, lower, self._fingerprint)
        start = None if origin is None else origin.boundary
        if origin is not None:
            fetch = lambda rows: origin.gather(rows)  # noqa: E731
        elif augmentation:
            fetch = view_fetch(dataset.in_pieces(), run.preprocessing, augmentation, seed)
        else:
            fetch = image_fetch(dataset.in_pieces(), run.preprocessing)

        def features(ranges: RowRanges) -> Iterator[dict[str, np.ndarray]]:
            self._calibrate(progress)
            prefix, size = self._compile(start), EXTRACTION_BATCH * self._local.count

            def compute(batch: Batch, count: int) -> dict[str, np.ndarray]:
                inputs = {name: value for name, value in batch.items() if name in INPUTS}
                found = prefix(self._arrays, self._local.batch(inputs))
                arrays = found if isinstance(found, Mapping) else {"features": found}
                return {name: np.asarray(array)[:count] for name, array in arrays.items()}

            lists = [
                np.arange(at, min(at + size, last))
                for first, last in ranges
                for at in range(first, last, size)
            ]
            filled, readers = _Filled(fetch, size), run.readers(fetch, rows)
            if readers.workers:
                batches = listed_batches(filled, lists, threads=readers.threads, workers=readers.workers)
                yield from map(compute, batches, map(len, lists))
                return
            # The reading threads compute as well: one program at a time leaves some cores of a CPU idle.
            yield from listed_batches(
                lambda rows: compute(filled(rows), len(rows)), lists, threads=readers.threads
            )

        progress.start(task, rows)
        extraction = write_shards(
            key,
            Layout(rows, EXTRACTION_BATCH, run.row_format(self._boundary), start),
            features,
            np.concatenate([dataset.labels] * (views or 1)),
            run.features,
            advance=progress.advance,
            log=progress.log,
        )
        progress.finish()
        self._extractions.append(extraction)
        if extraction.rows and extraction.cache.error:
            progress.log(f"features stored in {run.stored} are off by {extraction.cache.error:.2%} (RMS)")
        return extraction

    def _precision(self) -> str:
        """Returns the precision of the features, which in int8 depends on the images of the calibration."""
        run = self._run
        if not run.int8:
            return str(run.prefix_dtype)
        images = run.train.subset(calibration_rows(run))
        return f"{run.prefix_dtype}, int8 calibrated on {images.fingerprint}"

    def _calibrate(self, progress: Progress) -> None:
        """Replaces the kernels of the prefix by those in int8, if the run says so, before the first use."""
        if self._run.int8 and not self._is_calibrated:
            found = calibrate(self._run, self._boundary, self._arrays)
            progress.log(str(found))
            self._arrays = {**self._arrays, **self._local.place(found.kernels)}
            self._is_calibrated = True

    def _fingerprint(self, boundary: str) -> str:
        """Returns a hash of all arrays below the end of a boundary, and of the program if it is not ours."""
        below = prefix_arrays(self._hashes, boundary, self._run.block_names)
        rules = {  # Their settings are not among the arrays.
            f"adapter {each.name}": str({**each.to_json(), "layers": ()})
            for each in self._backbone.adapters
            if prefix_arrays(dict.fromkeys(each.layers), boundary, self._run.block_names)
        }
        return combined_hash({**below, **rules, **self._backbone.program_hashes(boundary)})

    def _compile(self, start: str | None) -> Compiled:
        if start not in self._compiled:
            self._compiled[start] = compile_prefix(self._run, self._boundary, self._arrays, start)
        return self._compiled[start]


@dataclasses.dataclass(frozen=True)
class _Filled:
    """A `Fetch` of batches of one size: the last image fills an incomplete one."""

    fetch: Fetch
    size: int

    def __call__(self, rows: np.ndarray) -> Batch:
        return self.fetch(np.pad(rows, (0, self.size - len(rows)), mode="edge"))


def compile_prefix(run: Run, boundary: str, arrays: Arrays, start: str | None = None) -> Compiled:
    """Compiles the frozen prefix up to a boundary for `EXTRACTION_BATCH` images per device.

    Args:
        run: The run.
        boundary: End of the prefix.
        arrays: All arrays of the model, on the devices of this process.
        start: A lower boundary whose features are the input; None for images.
    """
    prefix = make_prefix(run.graphdef, boundary, run.preprocessing, run.prefix_dtype, start=start)
    local = run.strategy.local()
    count = EXTRACTION_BATCH * local.count
    inputs = local.batch(input_shapes(run, count) if start is None else _features_shape(run, count, start))
    return compile_function(local.each(prefix, whole=False), arrays, inputs, strategy=local, batch=1)


def _features_shape(run: Run, count: int, boundary: str) -> dict[str, Any]:
    features = run.feature_shapes[boundary]["features"]
    return {"features": jax.ShapeDtypeStruct((count, *features.shape), run.prefix_dtype)}
