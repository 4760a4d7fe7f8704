"""Proof that frozen is frozen: hashes of every array before and after."""

import hashlib
from collections.abc import Mapping

import jax
import numpy as np

from transfer_jax.distributed.processes import to_host


class FrozenChangedError(RuntimeError):
    """A parameter or statistic that was to stay frozen did not."""


def digests(arrays: Mapping[str, jax.Array]) -> dict[str, str]:
    """The SHA-256 of each array's dtype, shape and bytes, by path."""
    return {path: _digest(to_host(array)) for path, array in sorted(arrays.items())}


def fingerprint(arrays: Mapping[str, jax.Array]) -> str:
    """One SHA-256 over all arrays and their paths."""
    return together(digests(arrays))


def together(digests: Mapping[str, str]) -> str:
    """One SHA-256 over the result of `digests`."""
    lines = "\n".join(f"{path} {digest}" for path, digest in sorted(digests.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def check_unchanged(before: Mapping[str, str], after: Mapping[str, str]) -> None:
    """Compares two results of `digests`.

    Raises:
        FrozenChangedError: If any array changed, appeared or vanished; the first few are named.
    """
    changed = sorted(path for path in {*before, *after} if before.get(path) != after.get(path))
    if changed:
        raise FrozenChangedError(f"{len(changed)} frozen arrays changed, first {', '.join(changed[:3])}")


def _digest(array: np.ndarray) -> str:
    digest = hashlib.sha256(f"{array.dtype.name} {array.shape} ".encode())
    digest.update(np.ascontiguousarray(array).view(np.uint8).data if array.size else b"")
    return digest.hexdigest()
