"""The order of training examples: the lists of positions of endless shuffled batches.

Element k of an order is the k-th batch. It depends on the seed and on k alone, so that a run resumes at any
batch, and every process and thread finds the same one.
"""

import sys
from collections.abc import Sequence
from typing import Literal, overload

import numpy as np
from grain.experimental import index_shuffle

Order = Literal["global", "blocks"]
"""`global` shuffles all examples; `blocks` shuffles blocks of neighbours, then those of a few blocks."""
BLOCK = 1024
"""Examples of a block: neighbours in the source, and mostly in the same file."""
WINDOW = 16
"""Blocks whose examples are shuffled together: the examples of a batch come from them."""
_LISTED = 1 << 20
"""Largest number of examples whose permutation is listed in memory: 8 MB."""
_ROUNDS = 4
"""Rounds of the cipher of `index_shuffle`, as in grain's own shuffle."""


class _Batches(Sequence[np.ndarray]):
    """Endless batches of positions."""

    def __init__(self, size: int, batch_size: int, seed: int) -> None:
        self._size, self._batch_size, self._seed = size, batch_size, seed

    def __len__(self) -> int:
        return sys.maxsize

    @overload
    def __getitem__(self, index: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[np.ndarray]: ...
    def __getitem__(self, index: int | slice) -> np.ndarray | Sequence[np.ndarray]:
        if isinstance(index, slice):
            raise TypeError("an endless order has no slices")
        epoch, batch = divmod(int(index), self._size // self._batch_size)
        return self._batch(epoch, batch)

    def _batch(self, epoch: int, batch: int) -> np.ndarray:
        raise NotImplementedError


class ListedOrder(_Batches):
    """A permutation of all examples in each epoch, which is kept in memory.

    grain's shuffle and batch do the same, one position at a time: 6 ms for a batch of 512, as much as
    gathering that many cached features takes.

    Args:
        size: Number of examples.
        batch_size: Number of examples in a batch.
        seed: Non-negative seed.
    """

    def __init__(self, size: int, batch_size: int, seed: int) -> None:
        super().__init__(size, batch_size, seed)
        self._epochs: dict[int, np.ndarray] = {}

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_epochs": {}}

    def _batch(self, epoch: int, batch: int) -> np.ndarray:
        order = self._epochs.get(epoch)
        if order is None:
            order = np.random.default_rng((self._seed, epoch)).permutation(self._size)
            # Two epochs are in use at the end of each epoch. Several threads do this at once.
            self._epochs = {epoch: order, **dict([*self._epochs.items()][:1])}
        first = batch * self._batch_size
        return order[first : first + self._batch_size].copy()


class ComputedOrder(_Batches):
    """A permutation of all examples in each epoch, computed when it is needed: it takes no memory.

    Args:
        size: Number of examples.
        batch_size: Number of examples in a batch.
        seed: Non-negative seed.
    """

    def _batch(self, epoch: int, batch: int) -> np.ndarray:
        first = batch * self._batch_size
        return _shuffled(np.arange(first, first + self._batch_size), self._size, (self._seed, epoch))


class BlockOrder(_Batches):
    """Blocks of neighbouring examples in random order, and the examples of a few blocks in random order.

    Each reader, a process, has a contiguous part of the shuffled blocks in an epoch, so that it reads few
    files at a time, and no example is read twice. The parts change in each epoch. The order depends on the
    number of readers.

    Args:
        size: Number of examples.
        batch_size: Number of examples in a batch, a multiple of `readers`.
        seed: Non-negative seed.
        readers: Number of processes. The first one reads the first `batch_size / readers` examples of each
            batch, and so on.
        block: Examples of a block.
        window: Blocks whose examples are shuffled together.

    Raises:
        ValueError: If the batch is no multiple of the readers.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        seed: int,
        readers: int = 1,
        block: int = BLOCK,
        window: int = WINDOW,
    ) -> None:
        super().__init__(size, batch_size, seed)
        if batch_size % readers:
            raise ValueError(
                f"a batch of {batch_size} examples cannot be divided among {readers} processes; choose a "
                f"multiple of {readers}"
            )
        self._readers = readers
        # Small sets have smaller blocks, so that there are at least 64 of them.
        self._block = max(1, min(block, size // 64))
        self._window = window * self._block

    def _batch(self, epoch: int, batch: int) -> np.ndarray:
        share = self._batch_size // self._readers
        rows = np.arange(batch * share, (batch + 1) * share)
        # All parts have the same length; the last blocks of an epoch are left out by its shuffle.
        length = self._size // self._readers
        places = [
            part * length + self._in_windows(rows, length, epoch, part) for part in range(self._readers)
        ]
        return self._in_blocks(np.concatenate(places), epoch)

    def _in_windows(self, rows: np.ndarray, length: int, epoch: int, part: int) -> np.ndarray:
        """Returns the places in a part of an epoch, int `(n,)`: those of a window are permuted."""
        found = np.empty_like(rows)
        windows = rows // self._window
        for window in np.unique(windows):
            chosen = windows == window
            first = int(window) * self._window
            size = min(self._window, length - first)
            seed = (self._seed, epoch, part, int(window))
            found[chosen] = first + _shuffled(rows[chosen] - first, size, seed)
        return found

    def _in_blocks(self, places: np.ndarray, epoch: int) -> np.ndarray:
        """Returns the positions of examples by their places in the sequence of shuffled blocks."""
        blocks = -(-self._size // self._block)
        short = blocks * self._block - self._size
        # The last block may be short. The sequence starts with the rest of it, so that all others are whole.
        last = self._block - short
        numbers, offsets = np.divmod(places - last, self._block)
        whole = blocks - 1
        unique, inverse = np.unique(numbers[numbers >= 0], return_inverse=True)
        found = np.where(places < last, whole * self._block + places, 0)
        shuffled = _shuffled(unique, whole, (self._seed, epoch)) if whole else unique
        found[numbers >= 0] = shuffled[inverse] * self._block + offsets[numbers >= 0]
        return found


def make_order(
    size: int, batch_size: int, seed: int, order: Order = "global", readers: int = 1
) -> Sequence[np.ndarray]:
    """Returns the positions of endless shuffled batches, int64 `(batch_size,)` each.

    Args:
        size: Number of examples.
        batch_size: Number of examples in a batch.
        seed: Non-negative seed.
        order: See `Order`.
        readers: Number of processes that read; only `blocks` depends on it.

    Raises:
        ValueError: If a batch of `blocks` cannot be divided among the readers.
    """
    if order == "blocks":
        return BlockOrder(size, batch_size, seed, readers)
    return (ListedOrder if size <= _LISTED else ComputedOrder)(size, batch_size, seed)


def _shuffled(positions: np.ndarray, size: int, seed: tuple[int, ...]) -> np.ndarray:
    """Returns where a random permutation of `range(size)` places some positions, int64 `(n,)`."""
    if size <= _LISTED:  # `index_shuffle` is slow for small sizes: 5 ms for 2, 5 us for 10,000.
        return np.random.default_rng(seed).permutation(size)[positions]
    key = int(np.random.SeedSequence(seed).generate_state(1)[0])
    places = [
        index_shuffle(position, max_index=size - 1, seed=key, rounds=_ROUNDS)
        for position in positions.tolist()
    ]
    return np.array(places, dtype=np.int64)
