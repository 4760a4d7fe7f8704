"""Predictions of a run's network with arrays other than its first and last ones."""

import math
from collections.abc import Iterator, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from transfer_jax.data import ImageDataset, image_fetch, ordered_batches
from transfer_jax.diagnostics.finished_run import FinishedRun
from transfer_jax.features import make_prefix
from transfer_jax.models import PRE_LOGITS
from transfer_jax.models.flat_arrays import Arrays
from transfer_jax.training.evaluation import predict
from transfer_jax.training.forward import INPUTS, Batch, Forward
from transfer_jax.training.phase_step import make_eval_step

_FEATURE_BYTES = 1 << 30
_BATCH = 32


class Scorer:
    """A function from arrays to predictions, for arrays that differ above the run's boundary only.

    The unchanged blocks up to the boundary run once if there are several calls. Their features are kept in
    memory if they take at most 1 GiB.

    Args:
        finished: The run.
        dataset: Images to predict.
        calls: Number of calls to come.
    """

    def __init__(self, finished: FinishedRun, dataset: ImageDataset, calls: int = 1) -> None:
        run = finished.run
        start = finished.boundary if calls > 1 else None
        if run.config.taps and start != PRE_LOGITS:
            start = None  # The head also reads the blocks below the boundary.
        if start and len(dataset) * _bytes(run.feature_shapes[start]) > _FEATURE_BYTES:
            start = None
        self._size = min(_BATCH, len(dataset))
        self._count, self._progress, self._task = len(dataset), finished.progress, run.task
        forward = Forward(
            graphdef=run.graphdef, start=start, prefix=PRE_LOGITS, preprocessing=run.preprocessing
        )
        self._step = jax.jit(make_eval_step(forward))
        self._fetch = image_fetch(dataset.in_pieces(), run.preprocessing)
        self._threads = run.readers(self._fetch).threads
        if start:
            prefix = jax.jit(make_prefix(run.graphdef, start, run.preprocessing, jnp.float32))
            self._progress.start("running unchanged blocks", self._count)
            found = []
            for batch in self._batches():
                inputs = {name: batch[name] for name in INPUTS if name in batch}
                features = jax.device_get(prefix(finished.end, inputs))
                found.append(jax.tree.map(lambda rows, batch=batch: rows[batch["mask"]], features))
            features = jax.tree.map(lambda *parts: np.concatenate(parts), *found)
            self._progress.finish()
            self._fetch = lambda rows: {"features": jax.tree.map(lambda x: x[rows], features)}

    def __call__(self, arrays: Arrays) -> np.ndarray:
        """Returns the predictions `(images, columns)` of the network with these arrays."""
        return predict(self._step, arrays, self._batches(), self._task)

    def _batches(self) -> Iterator[Batch]:
        for batch in ordered_batches(self._fetch, self._count, batch_size=self._size, threads=self._threads):
            yield batch
            self._progress.advance(int(batch["mask"].sum()))


def _bytes(shapes: Mapping[str, jax.ShapeDtypeStruct]) -> int:
    """Returns the size of the features of one image in float32, in bytes."""
    return sum(4 * math.prod(each.shape) for each in shapes.values())


def sample_images(dataset: ImageDataset, images: int, seed: int) -> ImageDataset:
    """Returns a random subset of the images, or all of them if there are not more.

    Args:
        dataset: The images.
        images: Maximum number of images.
        seed: Seed of the subset.
    """
    if len(dataset) <= images:
        return dataset
    return dataset.subset(np.sort(np.random.default_rng(seed).permutation(len(dataset))[:images]))
