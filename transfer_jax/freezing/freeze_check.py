"""Hashes of arrays that show that frozen parameters did not change."""

import hashlib
from collections.abc import Mapping

import jax
import numpy as np

from transfer_jax.distributed.processes import to_host


class FrozenChangedError(RuntimeError):
    """A frozen parameter or statistic changed."""


def array_hashes(arrays: Mapping[str, jax.Array | np.ndarray]) -> dict[str, str]:
    """Returns the SHA-256 of each array's dtype, shape and bytes, by path.

    Example:
        >>> before = array_hashes(frozen)  # then train
        >>> check_unchanged(before, array_hashes(frozen))
    """
    return {path: _hash_array(to_host(array)) for path, array in sorted(arrays.items())}


def combined_hash(hashes: Mapping[str, str]) -> str:
    """Returns one SHA-256 over all paths and hashes that `array_hashes` returned."""
    lines = "\n".join(f"{path} {digest}" for path, digest in sorted(hashes.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def check_unchanged(before: Mapping[str, str], after: Mapping[str, str]) -> None:
    """Compares two results of `array_hashes`.

    Args:
        before: Hashes by path before training.
        after: Hashes by path after training.

    Raises:
        FrozenChangedError: If an array changed, was added or is missing. The message names the first three.
    """
    changed = sorted(path for path in {*before, *after} if before.get(path) != after.get(path))
    if changed:
        raise FrozenChangedError(f"{len(changed)} frozen arrays changed, first {', '.join(changed[:3])}")


def _hash_array(array: np.ndarray) -> str:
    digest = hashlib.sha256(f"{array.dtype.name} {array.shape} ".encode())
    digest.update(np.ascontiguousarray(array).view(np.uint8).data if array.size else b"")
    return digest.hexdigest()
