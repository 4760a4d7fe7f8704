"""Batches of examples that are fetched by index, prefetched in threads with grain.

The order and the augmentation depend on the seed only, not on the number of threads. The state of an iterator
is the number of batches that it has returned; `set_state` continues exactly there.

An error in `fetch` is raised unchanged by the iterator. Make a new iterator after an error: the failed batch
is not counted as returned.
"""

import functools
import sys
from collections.abc import Callable, Sequence
from typing import Any

import grain
import numpy as np

Batch = dict[str, Any]
"""Arrays by name, examples on axis 0; `inputs` is a dictionary of such arrays."""
Fetch = Callable[[np.ndarray], Batch]
"""Function from indices to a batch."""
RandomFetch = Callable[[np.ndarray, np.ndarray, np.random.Generator], Batch]
"""Function from indices, their positions in the batch and a random generator to a batch."""
Batches = grain.IterDataset
"""An iterable of `Batch` whose iterators have `get_state` and `set_state`."""


def shuffled_batches(
    fetch: RandomFetch,
    size: int,
    *,
    batch_size: int,
    seed: int,
    rows: np.ndarray | None = None,
    threads: int = 2,
    prefetch: int = 2,
) -> Batches:
    """Returns endless shuffled batches for training.

    Each epoch is a new permutation of all examples without an incomplete last batch.

    Args:
        fetch: Called in a thread with int64 indices `(rows,)`, their positions in the batch, and a random
            generator for the batch; returns a dictionary of arrays.
        size: Number of examples; indices are in `range(size)`.
        batch_size: Number of examples in a batch.
        seed: Non-negative seed of the order and of the random generators.
        rows: int `(rows,)`, positions in each batch of the examples that this process fetches; None fetches
            all.
        threads: Number of threads, each of which fetches a batch at a time; 0 fetches a batch when it is
            needed.
        prefetch: Number of batches that are prefetched; at least one for each thread.

    Returns:
        An iterable of the fetched dictionaries with an entry `index`, the indices of the whole batch
        `(batch_size,)`. Its iterators have `get_state` and `set_state`. An epoch has `size // batch_size`
        batches.

    Raises:
        ValueError: If a number is out of range, such as a `batch_size` above `size`.
    """
    if not 1 <= batch_size <= size:
        raise ValueError(f"batch_size must be in 1..{size}, the number of examples, got {batch_size}")
    if seed < 0:
        raise ValueError(f"seed must not be negative, got {seed}")
    positions = np.arange(batch_size) if rows is None else rows

    def fetched(indices: np.ndarray, rng: np.random.Generator) -> Batch:
        return {**fetch(indices[positions], positions, rng), "index": indices}

    batches = grain.MapDataset.source(_ShuffledIndices(size, batch_size, seed)).random_map(fetched, seed=seed)
    return batches.to_iter_dataset(_read_options(threads, prefetch))


def ordered_batches(
    fetch: Fetch,
    size: int,
    *,
    batch_size: int,
    rows: np.ndarray | None = None,
    threads: int = 2,
    prefetch: int = 2,
) -> Batches:
    """Returns batches of all examples once, in order, for evaluation.

    Args:
        fetch: Called in a thread with int64 indices `(rows,)`; returns a dictionary of arrays.
        size: Number of examples.
        batch_size: Number of examples in a batch. The last batch is padded with copies of the last example.
        rows: As for `shuffled_batches`.
        threads: As for `shuffled_batches`.
        prefetch: As for `shuffled_batches`.

    Returns:
        A finite iterable of the fetched dictionaries with an entry `mask` of the whole batch, bool
        `(batch_size,)`, False for padding.

    Raises:
        ValueError: If a number is out of range.
    """
    if size < 1 or batch_size < 1:
        raise ValueError(f"size and batch_size must be at least 1, got {size} and {batch_size}")
    positions = np.arange(batch_size) if rows is None else rows

    def masked(indices: np.ndarray) -> Batch:
        return {**fetch(np.minimum(indices, size - 1)[positions]), "mask": indices < size}

    lists = [np.arange(first, first + batch_size) for first in range(0, size, batch_size)]
    return listed_batches(masked, lists, threads=threads, prefetch=prefetch)


def listed_batches(
    fetch: Fetch, lists: Sequence[np.ndarray], *, threads: int = 2, prefetch: int = 2
) -> Batches:
    """Returns one batch for each list of indices, in order.

    Args:
        fetch: Called in a thread with a list of indices; returns a dictionary of arrays.
        lists: int arrays of the indices of each batch.
        threads: As for `shuffled_batches`.
        prefetch: As for `shuffled_batches`.

    Raises:
        ValueError: If a number is out of range.
    """
    return grain.MapDataset.source(lists).map(fetch).to_iter_dataset(_read_options(threads, prefetch))


class _ShuffledIndices:
    """A sequence whose element k is the k-th batch of indices of endless shuffled epochs.

    grain's shuffle and batch do the same, one index at a time: 6 ms for a batch of 512, as much as gathering
    that many cached features takes.
    """

    def __init__(self, size: int, batch_size: int, seed: int) -> None:
        self._batch_size = batch_size
        self._batches_per_epoch = size // batch_size
        # Two epochs are in use at the end of each epoch.
        self._order = functools.lru_cache(maxsize=2)(
            lambda epoch: np.random.default_rng((seed, epoch)).permutation(size)
        )

    def __len__(self) -> int:
        return sys.maxsize

    def __getitem__(self, index: int) -> np.ndarray:
        epoch, batch = divmod(int(index), self._batches_per_epoch)
        first = batch * self._batch_size
        return self._order(epoch)[first : first + self._batch_size].copy()


def _read_options(threads: int, prefetch: int) -> grain.ReadOptions:
    if threads < 0 or prefetch < 0:
        raise ValueError(f"threads and prefetch must not be negative, got {threads} and {prefetch}")
    return grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(prefetch, threads))
