"""Extraction of the features of any model, over any data, into a cache on disk."""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from transfer_jax.data.example_source import own_fingerprint
from transfer_jax.data.pipeline import listed_batches
from transfer_jax.features.cache_dir import FeatureCacheDir
from transfer_jax.features.example_arrays import ExampleArrays
from transfer_jax.features.feature_cache import FeatureCache
from transfer_jax.features.manifest import FeatureKey
from transfer_jax.features.row_format import DTYPES, ArrayFormat, RowFormat
from transfer_jax.features.shard_writer import Layout, RowRanges, write_shards
from transfer_jax.report.progress import Progress, Silent
from transfer_jax.storage.remote import local_path

_logger = logging.getLogger(__name__)


class Shape(Protocol):
    """The shape and the dtype of an array of one example."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> Any: ...


class Prefix(Protocol):
    """A computation of features, such as a `Split`; see there for its attributes."""

    @property
    def features(self) -> Mapping[str, Shape]: ...
    @property
    def inputs(self) -> tuple[str, ...]: ...
    @property
    def prefix_inputs(self) -> Mapping[str, jax.ShapeDtypeStruct]: ...
    def prefix(self, frozen: Any, batch: Any, state: Any = None, /) -> dict[str, jax.Array]: ...
    def digest(self, frozen: Any, state: Any = None, /) -> str: ...


def cache_features(
    split: Prefix,
    frozen: Any,
    data: Any,
    directory: str | os.PathLike[str] | FeatureCacheDir,
    *,
    state: Any = None,
    batch_size: int = 32,
    keep: Sequence[str] | str | None = None,
    stored: str | None = None,
    fingerprint: str | None = None,
    threads: int = 1,
    progress: Progress | None = None,
) -> FeatureCache:
    """Computes the features of a split once for each example, and returns them as a cache on disk.

    Each cache has a folder of its own in `directory`. Its name is a hash of the prefix with its parameters
    (`split.digest`), the data, and the stored precision: if one of them changes, another cache is written.
    Shards are written atomically, so that an interrupted extraction continues with the next shard.

    Example:
        >>> cache = cache_features(split, frozen, data, "features", state=state)
        >>> batch = cache.gather(np.arange(32))
        >>> outputs = split.suffix(trainable, frozen, state, batch, batch, key)

    Args:
        split: The split of a function.
        frozen: The frozen parameters, as for `split.prefix`.
        data: The examples: a tree of arrays with the examples on axis 0, or anything with `__len__` and
            `__getitem__` whose items are trees of arrays of one example, such as a list of dictionaries, a
            grain `MapDataset`, a torch `Dataset` or a Hugging Face dataset. The trees have the structure of
            the batch that the function was split with.
        directory: The folder of caches, which may be in object storage; a `FeatureCacheDir` limits its size.
        state: The state, as for `split.prefix`.
        batch_size: Examples that are computed at a time. For convolutional networks on a CPU, 2 are faster.
        keep: Paths of arrays of the examples that are stored beside the features, such as `("label",)`. None
            keeps those that the suffix needs, and all arrays of numbers that the prefix does not need.
        stored: Precision of floating-point features on disk: `float32`, `bfloat16`, `float16` or `int8`.
            None stores them as they are. They are returned in the dtype in which they were computed.
        fingerprint: A name for the content of the data, which must change whenever an example changes. None
            takes the one that the data have (Hugging Face datasets), or reads all examples to hash them;
            those that take more than a tenth of the free memory are then read once more.
        threads: Threads that read examples. Data that are safe for several threads are read faster.
        progress: Receives the number of examples; None reports nothing.

    Returns:
        The complete cache: the features and the kept arrays of each example, by name.

    Raises:
        ValueError: If the data have no length or no examples, or their arrays do not fit the split or differ
            from example to example; if the split has no features; or if a name or option is invalid.
        FeatureBudgetError: If the features need more disk space than the limit of the folder.
    """
    progress = progress or Silent()
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    if stored is not None and stored not in DTYPES:
        raise ValueError(f"stored must be one of {DTYPES} or None, got {stored!r}")
    if not split.features:
        raise ValueError(
            "the split has no features to cache: its trainable part begins at the batch; train on the "
            "examples themselves, or freeze more parameters"
        )
    examples = ExampleArrays(data, split.prefix_inputs, split.inputs, keep)
    row_format = _row_format(split, examples, stored)
    if stored is None:
        _note_size(split, progress)
    if fingerprint is None:
        fingerprint = own_fingerprint(data) or _hashed(examples, threads, progress)
    key = FeatureKey(
        weights=split.digest(frozen, state),
        boundary=", ".join(row_format.arrays),
        preprocessing={},
        dtype=", ".join(str(each.decoded) for each in row_format.arrays.values()),
        dataset=fingerprint,
        stored=stored,
    )
    size = max(2, min(batch_size, len(examples)))
    compute, frozen, state = jax.jit(split.prefix), jax.device_put(frozen), jax.device_put(state)

    def batches(ranges: RowRanges) -> Iterator[dict[str, np.ndarray]]:
        """Yields the features of ranges of examples. A batch is copied while the next one is computed."""
        lists = [
            np.arange(at, min(at + size, last)) for first, last in ranges for at in range(first, last, size)
        ]
        running = None
        for batch in listed_batches(examples.read, lists, threads=threads):
            count = len(next(iter(batch.values())))
            needed = {path: _padded(batch[path], size) for path in split.prefix_inputs}
            computed = compute(frozen, needed, state)
            if running is not None:
                yield _rows(*running)
            running = computed, {path: batch[path] for path in examples.kept}, count
        if running is not None:
            yield _rows(*running)

    folder = directory if isinstance(directory, FeatureCacheDir) else FeatureCacheDir(local_path(directory))
    progress.start("extracting features", len(examples))
    layout = Layout(len(examples), size, row_format)
    extraction = write_shards(key, layout, batches, None, folder, advance=progress.advance, log=progress.log)
    progress.finish()
    return extraction.cache


def _row_format(split: Prefix, examples: ExampleArrays, stored: str | None) -> RowFormat:
    """Returns the format of the features and of the kept arrays."""
    both = [name for name in examples.kept if name in split.features]
    if both:
        raise ValueError(
            f"{both[0]!r} is both a feature and an array of the examples; leave it out of `keep`"
        )
    arrays = {name: _stored(each, stored) for name, each in split.features.items()}
    return RowFormat({**arrays, **{name: _stored(each, None) for name, each in examples.kept.items()}})


def _stored(array: Shape, stored: str | None) -> ArrayFormat:
    """Returns the format of an array; arrays that are not floating-point are stored as they are."""
    dtype, shape = jnp.dtype(array.dtype), tuple(array.shape)
    as_it_is = ArrayFormat(shape, str(dtype), "int8" if dtype == np.int8 else None)
    if stored is None or not jnp.issubdtype(dtype, jnp.floating) or (stored == "int8" and not shape):
        return as_it_is
    reduced = ArrayFormat(shape, stored)
    return reduced if reduced.decoded == dtype else ArrayFormat(shape, stored, str(dtype))


def _note_size(split: Prefix, progress: Progress) -> None:
    """Logs a warning if the features of an example are larger than the example."""
    sizes = [
        sum(int(np.prod(each.shape)) * jnp.dtype(each.dtype).itemsize for each in arrays.values())
        for arrays in (split.features, split.prefix_inputs)
    ]
    if sizes[0] > sizes[1]:
        text = (
            f"the features of an example take {sizes[0]:,} bytes, more than the example with {sizes[1]:,}; "
            "stored='bfloat16' halves float32"
        )
        (_logger.warning if isinstance(progress, Silent) else progress.log)(text)


def _hashed(examples: ExampleArrays, threads: int, progress: Progress) -> str:
    progress.start("hashing examples", len(examples))
    found = examples.fingerprint(threads, progress.advance)
    progress.finish()
    return found


def _padded(array: np.ndarray, size: int) -> np.ndarray:
    """Returns an array with its last row repeated up to a number of rows."""
    missing = size - len(array)
    return np.concatenate([array, np.repeat(array[-1:], missing, axis=0)]) if missing else array


def _rows(
    computed: Mapping[str, jax.Array], kept: Mapping[str, np.ndarray], count: int
) -> dict[str, np.ndarray]:
    return {**{name: np.asarray(array)[:count] for name, array in computed.items()}, **kept}
