"""The positions of items by their group, such as images by class, without a search for each group."""

import numpy as np

_CHUNK = 1 << 20
"""Number of items that are sorted at once."""


class Grouped:
    """Items by group, in linear time and four bytes an item.

    Attributes:
        sizes: int64 `(groups,)`, number of items of each group, of empty ones too.

    Args:
        groups: int `(items,)`, the group of each item, 0 or more.
    """

    def __init__(self, groups: np.ndarray) -> None:
        self._groups = groups
        self.sizes = group_sizes(groups)
        self._starts = np.concatenate(([0], np.cumsum(self.sizes)))
        self._order: np.ndarray | None = None

    def members(self, group: int | np.integer) -> np.ndarray:
        """Returns the positions of the items of a group, ascending."""
        if self._order is None:
            self._order = self._sorted()
        return self._order[self._starts[group] : self._starts[group + 1]]

    def _sorted(self) -> np.ndarray:
        """Returns all positions, by group and then ascending: a counting sort, a chunk at a time."""
        order = np.empty(len(self._groups), np.int32 if len(self._groups) < 1 << 31 else np.int64)
        upcoming = self._starts[:-1].copy()
        for first in range(0, len(order), _CHUNK):
            chunk = self._groups[first : first + _CHUNK]
            if len(self.sizes) <= 1 << 16:
                chunk = chunk.astype(np.uint16)  # NumPy sorts these in linear time.
            by_group = np.argsort(chunk, kind="stable")
            counts = np.bincount(chunk, minlength=len(self.sizes))
            within = np.arange(len(chunk)) - np.repeat(np.cumsum(counts) - counts, counts)
            order[np.repeat(upcoming, counts) + within] = by_group + first
            upcoming += counts
        return order


def group_sizes(groups: np.ndarray, least: int = 0) -> np.ndarray:
    """Returns the number of items of each group, int64 `(groups,)`.

    `np.bincount` copies all items to int64; this copies some at a time.

    Args:
        groups: int `(items,)`, the group of each item, 0 or more.
        least: Smallest number of groups.
    """
    count = max(least, int(groups.max()) + 1 if len(groups) else 0)
    sizes = np.zeros(count, np.int64)
    for first in range(0, len(groups), _CHUNK):
        sizes += np.bincount(groups[first : first + _CHUNK], minlength=count)
    return sizes


def positions(mask: np.ndarray) -> np.ndarray:
    """Returns the positions of True, int32 `(found,)`, with half the memory of `np.flatnonzero`."""
    if len(mask) >= 1 << 31:
        return np.flatnonzero(mask)
    found, end = np.empty(np.count_nonzero(mask), np.int32), 0
    for first in range(0, len(mask), _CHUNK):
        some = np.flatnonzero(mask[first : first + _CHUNK])
        found[end : end + len(some)] = some + first
        end += len(some)
    return found
