"""The shard of a batch that a program computes on: the whole batch, or the rows of one device.

Layers use these functions for statistics over a batch and for random numbers by row. The results then do not
depend on the number of devices. A program that computes on one shard is traced inside `use_shard`.
"""

import contextlib
import contextvars
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp

Arrays = Mapping[str, jax.Array]
Gather = Callable[[Arrays, Mapping[str, Any]], dict[str, jax.Array]]
ShardKernel = Callable[[jax.Array, int], jax.Array]


def _cast(arrays: Arrays, dtypes: Mapping[str, Any]) -> dict[str, jax.Array]:
    return {path: array.astype(dtypes[path]) for path, array in arrays.items()}


def _replicate(array: jax.Array, axis: int) -> jax.Array:
    return array


@dataclasses.dataclass(frozen=True)
class BatchShard:
    """One of several equal parts of a batch, in the order of the devices.

    Attributes:
        axes: Names of the mesh axes that the rows are sharded over; empty on one device.
        count: Number of shards.
        sync: True takes batch statistics over all shards; False takes them over each shard alone.
        gather: Function `(arrays, dtypes)` that gathers the sharded arrays of a model, by path, in other
            dtypes.
        shards_blocks: Whether arrays of blocks are sharded; each block then gathers its own.
        shard_kernel: Function `(array, axis)` that shards an array over the devices that work on the same
            rows.
    """

    axes: tuple[str, ...] = ()
    count: int = 1
    sync: bool = True
    gather: Gather = _cast
    shards_blocks: bool = False
    shard_kernel: ShardKernel = _replicate


_WHOLE = BatchShard()
_current: contextvars.ContextVar[BatchShard] = contextvars.ContextVar("shard", default=_WHOLE)


@contextlib.contextmanager
def use_shard(shard: BatchShard) -> Iterator[None]:
    """Traces the code inside the context as a program that computes on one shard of a batch."""
    token = _current.set(shard)
    try:
        yield
    finally:
        _current.reset(token)


def gather(arrays: Arrays, dtypes: Mapping[str, Any], *, later: tuple[str, ...] = ()) -> dict[str, jax.Array]:
    """Returns whole arrays from arrays, by path, that may be sharded over devices.

    Args:
        arrays: The arrays, or their shards, by path.
        dtypes: The dtype of each whole array. Shards are converted first, so that fewer bytes are exchanged.
        later: Prefixes of the paths of arrays that are converted only.
    """
    now = {path: array for path, array in arrays.items() if not path.startswith(later or " ")}
    return _cast(arrays, dtypes) | _current.get().gather(now, dtypes)


def shards_blocks() -> bool:
    """Returns True if arrays of blocks are sharded; each block then gathers its own."""
    return _current.get().shards_blocks


def shards_kernels() -> bool:
    """Returns whether `shard_kernel` shards arrays."""
    return _current.get().shard_kernel is not _replicate


def shard_kernel(array: jax.Array, axis: int) -> jax.Array:
    """Shards an array along an axis over the devices that work on the same rows, if that divides evenly."""
    return _current.get().shard_kernel(array, axis)


def mean(tree: Any) -> Any:
    """Returns the mean of each array over all shards."""
    axes = _current.get().axes
    return jax.lax.pmean(tree, axes) if axes else tree


def statistics_axes() -> tuple[str, ...]:
    """Returns the mesh axes that batch statistics are averaged over: none on one device or without sync."""
    shard = _current.get()
    return shard.axes if shard.sync else ()


def gather_rows(x: jax.Array) -> jax.Array:
    """Gathers the rows of all shards: `(rows, …)` becomes `(count x rows, …)`, in the order of the shards."""
    axes = _current.get().axes
    return jax.lax.all_gather(x, axes, tiled=True) if axes else x


def row_indices(rows: int) -> jax.Array:
    """Returns the indices `(rows,)` of this shard's rows in the whole batch."""
    axes = _current.get().axes
    first = jax.lax.axis_index(axes) * rows if axes else 0
    return first + jnp.arange(rows)


def global_rows(rows: int) -> int:
    """Returns the number of rows of the whole batch, given the number of rows of one shard."""
    return rows * _current.get().count


def sample_rows(key: jax.Array, rows: int, sample: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """Draws random arrays `(rows, …)`, each from a key that depends on the row's index in the whole batch.

    Args:
        key: Key of the whole batch.
        rows: Number of rows of this shard.
        sample: Function from a key to the random array of one row.
    """
    return jax.vmap(lambda index: sample(jax.random.fold_in(key, index)))(row_indices(rows))
