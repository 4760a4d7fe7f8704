"""Batches of examples that are fetched by index, prefetched in threads and processes with grain.

The order and the augmentation depend on the seed only, not on the number of threads and processes. The state
of an iterator is the number of batches that it has returned; `set_state` continues exactly there.

An error in `fetch` is raised unchanged by the iterator. Make a new iterator after an error: the failed batch
is not counted as returned.
"""

from collections.abc import Callable, Sequence
from typing import Any

import grain
import numpy as np

from transfer_jax.data.order import Order, make_order
from transfer_jax.data.process_batches import ProcessBatches

Batch = dict[str, Any]
"""Arrays by name, examples on axis 0; `inputs` is a dictionary of such arrays."""
Fetch = Callable[[np.ndarray], Batch]
"""Function from indices to a batch."""
RandomFetch = Callable[[np.ndarray, np.ndarray, np.random.Generator], Batch]
"""Function from indices, their positions in the batch and a random generator to a batch."""
Batches = grain.IterDataset | ProcessBatches
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
    workers: int = 0,
    order: Order | Sequence[np.ndarray] = "global",
    readers: int = 1,
) -> Batches:
    """Returns endless shuffled batches for training.

    Each epoch is a new permutation of all examples without an incomplete last batch. With more than a million
    examples, it is computed batch by batch, and takes no memory.

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
        workers: Number of processes that fetch, each with this number of threads; `fetch` is pickled. 0
            fetches in threads of this process.
        order: `global` shuffles all examples. `blocks` shuffles blocks of neighbours, then the examples of a
            few blocks: `BlockOrder`, for sources that are read faster in large pieces. A sequence has the
            indices of each batch itself.
        readers: Number of processes that `rows` are divided among, in order; `blocks` gives each of them
            blocks of its own.

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
    lists = make_order(size, batch_size, seed, order, readers) if isinstance(order, str) else order
    batches = grain.MapDataset.source(lists).random_map(_FetchRows(fetch, positions), seed=seed)
    return _batches(batches, threads, prefetch, workers)


def ordered_batches(
    fetch: Fetch,
    size: int,
    *,
    batch_size: int,
    rows: np.ndarray | None = None,
    threads: int = 2,
    prefetch: int = 2,
    workers: int = 0,
) -> Batches:
    """Returns batches of all examples once, in order, for evaluation.

    Args:
        fetch: Called in a thread with int64 indices `(rows,)`; returns a dictionary of arrays.
        size: Number of examples.
        batch_size: Number of examples in a batch. The last batch is padded with copies of the last example.
        rows: As for `shuffled_batches`.
        threads: As for `shuffled_batches`.
        prefetch: As for `shuffled_batches`.
        workers: As for `shuffled_batches`.

    Returns:
        A finite iterable of the fetched dictionaries with an entry `mask` of the whole batch, bool
        `(batch_size,)`, False for padding.

    Raises:
        ValueError: If a number is out of range.
    """
    if size < 1 or batch_size < 1:
        raise ValueError(f"size and batch_size must be at least 1, got {size} and {batch_size}")
    positions = np.arange(batch_size) if rows is None else rows
    masked = _FetchMasked(fetch, size, positions)
    return listed_batches(
        masked, _Consecutive(size, batch_size), threads=threads, prefetch=prefetch, workers=workers
    )


def listed_batches(
    fetch: Fetch, lists: Sequence[np.ndarray], *, threads: int = 2, prefetch: int = 2, workers: int = 0
) -> Batches:
    """Returns one batch for each list of indices, in order.

    Args:
        fetch: Called in a thread with a list of indices; returns a dictionary of arrays.
        lists: int arrays of the indices of each batch.
        threads: As for `shuffled_batches`.
        prefetch: As for `shuffled_batches`.
        workers: As for `shuffled_batches`.

    Raises:
        ValueError: If a number is out of range.
    """
    return _batches(grain.MapDataset.source(lists).map(fetch), threads, prefetch, workers)


class _FetchRows:
    """A `RandomFetch` of some rows of a batch, with the positions of the whole batch."""

    def __init__(self, fetch: RandomFetch, positions: np.ndarray) -> None:
        self._fetch, self._positions = fetch, positions

    def __call__(self, indices: np.ndarray, rng: np.random.Generator) -> Batch:
        return {**self._fetch(indices[self._positions], self._positions, rng), "index": indices}


class _FetchMasked:
    """A `Fetch` of some rows of a batch that is padded, with the mask of the whole batch."""

    def __init__(self, fetch: Fetch, size: int, positions: np.ndarray) -> None:
        self._fetch, self._size, self._positions = fetch, size, positions

    def __call__(self, indices: np.ndarray) -> Batch:
        rows = np.minimum(indices, self._size - 1)[self._positions]
        return {**self._fetch(rows), "mask": indices < self._size}


class _Consecutive(Sequence[np.ndarray]):
    """The lists of positions of batches in order; those of the last one may exceed the size."""

    def __init__(self, size: int, batch_size: int) -> None:
        self._count, self._batch_size = -(-size // batch_size), batch_size

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> np.ndarray:  # type: ignore[override]
        return np.arange(index * self._batch_size, (index + 1) * self._batch_size)


def _batches(batches: grain.MapDataset, threads: int, prefetch: int, workers: int) -> Batches:
    """Returns the batches of a dataset, prefetched."""
    if threads < 0 or prefetch < 0 or workers < 0:
        raise ValueError(
            f"threads, prefetch and workers must not be negative, got {threads}, {prefetch} and {workers}"
        )
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(prefetch, threads))
    if workers:
        return ProcessBatches(batches, options, workers)
    return batches.to_iter_dataset(options)
