"""The order of training examples whose features are in object storage: few shards at a time."""

import collections
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

GROUPS = 64
"""The largest number of groups of examples: hosts beyond it share groups."""
_WINDOW = 64
"""Shards of all groups that are in use at a time."""


class ShardOrder(Sequence[np.ndarray]):
    """Endless batches of shuffled positions that read each shard once in an epoch, on one host.

    The examples are divided into groups of neighbours, and the places of a batch as well, so that each place
    has examples of one group only. The groups do not depend on the number of processes: the order is the
    same on any number of hosts, and a host that has some places of each batch reads the shards of their
    groups, the same ones in each epoch. In an epoch a group is read shard by shard in a new random order, and
    the examples of the few shards in use are shuffled.

    Element k is batch k. It depends on the seed and on k alone.

    Args:
        size: Number of examples.
        batch_size: Number of examples in a batch. The number of groups is its largest divisor that is a
            power of two, at most `GROUPS` and at most the number of shards.
        seed: Non-negative seed.
        shard: Examples in a shard: neighbours in the file.
        places: int, the places in each batch that this process reads; None for all.
        prefetch: Called with ranges of positions, the shards that are needed next; None for nothing.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        seed: int,
        *,
        shard: int,
        places: np.ndarray | None = None,
        prefetch: Callable[[list[tuple[int, int]]], None] | None = None,
    ) -> None:
        self._size, self._batch_size, self._seed, self._shard = size, batch_size, seed, shard
        groups = batch_size & -batch_size
        while groups > min(GROUPS, -(-size // shard)):
            groups //= 2
        self.groups = max(1, groups)
        self._window = max(1, _WINDOW // self.groups)
        own = np.arange(batch_size) if places is None else np.asarray(places)
        self._own = {int(group) for group in np.unique(own * self.groups // batch_size)}
        self._prefetch = prefetch
        self._kept: collections.OrderedDict[Any, Any] = collections.OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return sys.maxsize

    def __getitem__(self, index: Any) -> Any:
        epoch, batch = divmod(int(index), self._size // self._batch_size)
        share = self._batch_size // self.groups
        parts = [self._part(epoch, group, batch * share, share) for group in range(self.groups)]
        return np.concatenate(parts)

    def _part(self, epoch: int, group: int, first: int, count: int) -> np.ndarray:
        """Returns some positions of the sequence of a group in an epoch, int64 `(count,)`."""
        _, ends = self._shards(epoch, group)
        found = []
        while count:
            window = int(np.searchsorted(ends, first, side="right"))
            start = int(ends[window - 1]) if window else 0
            taken = self._positions(epoch, group, window)[first - start :][:count]
            found.append(taken)
            first, count = first + len(taken), count - len(taken)
        return np.concatenate(found)

    def _shards(self, epoch: int, group: int) -> tuple[list[tuple[int, int]], np.ndarray]:
        """Returns the ranges of positions in the shards of a group, shuffled, and the ends of its windows."""

        def make() -> tuple[list[tuple[int, int]], np.ndarray]:
            low, high = (number * self._size // self.groups for number in (group, group + 1))
            inside = np.arange(low // self._shard + 1, -(-high // self._shard)) * self._shard
            edges = np.concatenate([[low], inside, [high]])
            order = np.random.default_rng((self._seed, epoch, group)).permutation(len(edges) - 1)
            ranges = [(int(edges[number]), int(edges[number + 1])) for number in order]
            lengths = np.cumsum([last - first for first, last in ranges])
            return ranges, lengths[[*range(self._window - 1, len(ranges) - 1, self._window), -1]]

        return self._keep(("shards", epoch, group), make)

    def _positions(self, epoch: int, group: int, window: int) -> np.ndarray:
        """Returns the positions of a window in their order, and asks for the shards of the next one."""

        def make() -> np.ndarray:
            ranges, _ = self._shards(epoch, group)
            now = ranges[window * self._window :][: self._window]
            if self._prefetch is not None and group in self._own:
                following = ranges[(window + 1) * self._window :] or self._shards(epoch + 1, group)[0]
                self._prefetch([*now, *following[: self._window]])
            positions = np.concatenate([np.arange(first, last) for first, last in now])
            return np.random.default_rng((self._seed, epoch, group, window)).permutation(positions)

        return self._keep(("window", epoch, group, window), make)

    def _keep(self, key: Any, make: Callable[[], Any]) -> Any:
        """Returns a result that is kept while it is in use: two epochs and two windows of each group."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        found = make()
        with self._lock:
            self._kept[key] = found
            while len(self._kept) > 4 * self.groups + 4:
                self._kept.popitem(last=False)
        return found

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": collections.OrderedDict(), "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ = {**state, "_lock": threading.Lock()}
