"""Hashes of arrays that show that frozen parameters did not change."""

import contextlib
import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from transfer_jax.counted import counted
from transfer_jax.distributed.processes import to_host
from transfer_jax.freezing.trees import leaves_by_path


class FrozenChangedError(RuntimeError):
    """A frozen parameter or statistic changed."""


@dataclasses.dataclass
class FreezeRecord:
    """The record of a check of frozen arrays; see `frozen_unchanged`.

    Attributes:
        before: SHA-256 of each array at the start, by path.
        after: SHA-256 of each array at the end; empty until then.
    """

    before: dict[str, str]
    after: dict[str, str] = dataclasses.field(default_factory=dict)

    def summary(self) -> dict[str, Any]:
        """Returns the number of arrays, and one hash of all of them before and after, as JSON values."""
        return {
            "arrays": len(self.before),
            "sha256_before": combined_hash(self.before),
            "sha256_after": combined_hash(self.after),
        }


@contextlib.contextmanager
def frozen_unchanged(tree: Any) -> Iterator[FreezeRecord]:
    """Checks that frozen arrays are the same at the end of a `with` block as at its start.

    Example:
        >>> with frozen_unchanged(frozen) as record:
        ...     for batch in batches:
        ...         state, metrics = step(state, frozen, features, batch)
        >>> record.summary()["arrays"]
        158
        >>> with frozen_unchanged(lambda: partition(nnx.state(model, nnx.Param), labels)[1]):
        ...     train(model)

    Args:
        tree: A tree of arrays; or a function without arguments that returns it, which is called at the start
            and at the end, for arrays that are replaced, such as those of an NNX module.

    Yields:
        The record, which is complete after the block.

    Raises:
        FrozenChangedError: If an array changed, was added or is missing, or its memory was donated. The
            message names the first three paths. Errors of the block itself are raised unchanged.
    """
    is_function = callable(tree) and jax.tree_util.all_leaves([tree])  # Modules are callable trees.
    read: Callable[[], Any] = tree if is_function else lambda: tree
    record = FreezeRecord(array_hashes(read()))
    yield record
    arrays = leaves_by_path(read())
    deleted = [path for path, array in arrays.items() if isinstance(array, jax.Array) and array.is_deleted()]
    if deleted:
        raise FrozenChangedError(
            f"{counted(len(deleted), 'frozen array was', 'frozen arrays were')} donated to a compiled "
            f"function, first {', '.join(deleted[:3])}; donate the state only"
        )
    record.after = array_hashes(arrays)
    check_unchanged(record.before, record.after)


def array_hashes(arrays: Any) -> dict[str, str]:
    """Returns the SHA-256 of each array's dtype, shape and bytes, by path.

    Example:
        >>> before = array_hashes(frozen)  # then train
        >>> check_unchanged(before, array_hashes(frozen))

    Args:
        arrays: A tree of arrays.
    """
    return {path: _hash_array(array) for path, array in sorted(leaves_by_path(arrays).items())}


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
        arrays = counted(len(changed), "frozen array")
        raise FrozenChangedError(f"{arrays} changed, first {', '.join(changed[:3])}")


def _hash_array(array: jax.Array | np.ndarray) -> str:
    if isinstance(array, jax.Array) and jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        array = jax.random.key_data(array)
    array = to_host(array)
    digest = hashlib.sha256(f"{array.dtype.name} {array.shape} ".encode())
    digest.update(np.ascontiguousarray(array).view(np.uint8).data if array.size else b"")
    return digest.hexdigest()
