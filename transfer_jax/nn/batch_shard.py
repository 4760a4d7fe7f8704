"""The shard of a batch that a program computes on: the whole batch, or the rows of one device.

Layers use these functions for statistics over a batch and for random numbers by row. The results then do not
depend on the number of devices. A program that computes on one shard is traced inside `use_shard`.
"""

import contextlib
import contextvars
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

Gather = Callable[[dict[str, jax.Array]], dict[str, jax.Array]]
ShardKernel = Callable[[jax.Array, int], jax.Array]


def _replicate(array: jax.Array, axis: int) -> jax.Array:
    return array


@dataclasses.dataclass(frozen=True)
class BatchShard:
    """One of several equal parts of a batch, in the order of the devices.

    Attributes:
        axes: Names of the mesh axes that the rows are sharded over; empty on one device.
        count: Number of shards.
        sync: True takes batch statistics over all shards; False takes them over each shard alone.
        gather: Function that gathers the sharded arrays of a model, by path.
        shard_kernel: Function `(array, axis)` that shards an array over the devices that work on the same
            rows.
    """

    axes: tuple[str, ...] = ()
    count: int = 1
    sync: bool = True
    gather: Gather = dict
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


def gather(arrays: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Returns whole arrays from arrays, by path, that may be sharded over devices."""
    return _current.get().gather(arrays)


def shard_kernel(array: jax.Array, axis: int) -> jax.Array:
    """Shards an array along an axis over the devices that work on the same rows, if that divides evenly."""
    return _current.get().shard_kernel(array, axis)


def mean(tree: Any) -> Any:
    """Returns the mean of each array over all shards."""
    axes = _current.get().axes
    return jax.lax.pmean(tree, axes) if axes else tree


def batch_mean(x: jax.Array) -> jax.Array:
    """Returns the mean per channel of `(batch, height, width, channels)`, over all shards if they sync."""
    own = x.mean(axis=(0, 1, 2))
    return mean(own) if _current.get().sync else own


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
