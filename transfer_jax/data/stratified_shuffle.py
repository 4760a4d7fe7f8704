"""A random split that keeps the proportions of groups, as `StratifiedShuffleSplit` of scikit-learn."""

import numpy as np

from transfer_jax.data.grouped import Grouped


def stratified_shuffle(groups: np.ndarray, held_out: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the positions of two parts with the same proportions of groups, each sorted.

    Args:
        groups: The group of each item, `(items,)`; each group has at least two items.
        held_out: Number of items in the second part.
        seed: The same seed gives the same split.
    """
    _, group = np.unique(groups, return_inverse=True)
    second = held_out_mask(Grouped(group), held_out, seed)
    return np.flatnonzero(~second), np.flatnonzero(second)


def held_out_mask(groups: Grouped, held_out: int, seed: int) -> np.ndarray:
    """Returns bool `(items,)`, True for the items of the second part of `stratified_shuffle`.

    Args:
        groups: The items by group. Those of a group with a single item are in the first part, and do not
            count in the proportions.
        held_out: Number of items in the second part.
        seed: The same seed gives the same split.
    """
    rng = np.random.RandomState(seed)
    divisible = np.flatnonzero(groups.sizes > 1)
    counts = groups.sizes[divisible]
    first_counts = _proportional_counts(counts, int(counts.sum()) - held_out, rng)
    second_counts = _proportional_counts(counts - first_counts, held_out, rng)
    second = np.zeros(int(groups.sizes.sum()), bool)
    for group, taken, others in zip(divisible, first_counts, second_counts, strict=True):
        rows = groups.members(group)
        second[rows[rng.permutation(len(rows))[taken : taken + others]]] = True
    return second


def _proportional_counts(counts: np.ndarray, total: int, rng: np.random.RandomState) -> np.ndarray:
    """Returns counts in the given proportions that add up to a total; ties are broken at random."""
    exact = counts / counts.sum() * total
    found = np.floor(exact)
    missing = int(total - found.sum())
    remainders = exact - found
    order = np.argsort(-remainders, kind="stable")  # Ties in the order of their positions.
    ends = np.flatnonzero(np.diff(remainders[order], append=np.nan)) + 1
    start = 0
    for end in ends:
        if missing <= 0:
            break
        tied = order[start:end]
        chosen = rng.choice(tied, size=min(len(tied), missing), replace=False)
        found[chosen] += 1
        missing -= len(chosen)
        start = end
    return found.astype(int)
