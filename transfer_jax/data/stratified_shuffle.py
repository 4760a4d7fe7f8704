"""A random split that keeps the proportions of groups, as `StratifiedShuffleSplit` of scikit-learn."""

import numpy as np


def stratified_shuffle(groups: np.ndarray, held_out: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the positions of two parts with the same proportions of groups, each sorted.

    Args:
        groups: The group of each item, `(items,)`; each group has at least two items.
        held_out: Number of items in the second part.
        seed: The same seed gives the same split.
    """
    rng = np.random.RandomState(seed)
    _, group, counts = np.unique(groups, return_inverse=True, return_counts=True)
    members = np.split(np.argsort(group, kind="stable"), np.cumsum(counts)[:-1])
    first_counts = _proportional_counts(counts, len(groups) - held_out, rng)
    second_counts = _proportional_counts(counts - first_counts, held_out, rng)
    first, second = [], []
    for rows, taken, others in zip(members, first_counts, second_counts, strict=True):
        shuffled = rows[rng.permutation(len(rows))]
        first.append(shuffled[:taken])
        second.append(shuffled[taken : taken + others])
    return np.sort(np.concatenate(first)), np.sort(np.concatenate(second))


def _proportional_counts(counts: np.ndarray, total: int, rng: np.random.RandomState) -> np.ndarray:
    """Returns counts in the given proportions that add up to a total; ties are broken at random."""
    exact = counts / counts.sum() * total
    found = np.floor(exact)
    missing = int(total - found.sum())
    remainders = exact - found
    for value in np.unique(remainders)[::-1]:
        if missing <= 0:
            break
        (tied,) = np.where(remainders == value)
        chosen = rng.choice(tied, size=min(len(tied), missing), replace=False)
        found[chosen] += 1
        missing -= len(chosen)
    return found.astype(int)
