"""The share of a batch that a program sees: all of it, or the rows of one device among several.

What a layer computes over a batch, or draws for its rows, is written with these functions, so that the
numbers are those of one device, whatever the devices. A program of one device among several is traced inside
`use_shard`.
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
        axes: Names of the axes of devices that the rows are spread over; none on one device.
        count: Number of parts.
        sync: Whether batch statistics are taken over all parts, and not over each alone.
        gather: Completes arrays of a model that are spread over devices.
        spread: Divides an array along an axis among devices that work on the same rows.
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
    """Traces a program that sees one share of a batch."""
    token = _current.set(shard)
    try:
        yield
    finally:
        _current.reset(token)


def gather(arrays: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """The whole of arrays that may be spread over devices."""
    return _current.get().gather(arrays)


def shard_kernel(array: jax.Array, axis: int) -> jax.Array:
    """The same array, divided along an axis among the devices that work on the same rows, if it can be."""
    return _current.get().shard_kernel(array, axis)


def mean(tree: Any) -> Any:
    """The mean of each array over all shares."""
    axes = _current.get().axes
    return jax.lax.pmean(tree, axes) if axes else tree


def batch_mean(x: jax.Array) -> jax.Array:
    """The mean per channel of `(batch, height, width, channels)`, over all shares if they are in step."""
    own = x.mean(axis=(0, 1, 2))
    return mean(own) if _current.get().sync else own


def gather_rows(x: jax.Array) -> jax.Array:
    """The rows of all shares, `(count x rows, …)`, of an array with this share's rows first."""
    axes = _current.get().axes
    return jax.lax.all_gather(x, axes, tiled=True) if axes else x


def row_indices(rows: int) -> jax.Array:
    """The places `(rows,)` in the whole batch of this share's rows."""
    axes = _current.get().axes
    first = jax.lax.axis_index(axes) * rows if axes else 0
    return first + jnp.arange(rows)


def global_rows(rows: int) -> int:
    """The rows of the whole batch, of which this share has so many."""
    return rows * _current.get().count


def sample_rows(key: jax.Array, rows: int, sample: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """Random arrays `(rows, …)`, each drawn by `function` from a key of its row's place in the batch."""
    return jax.vmap(lambda index: sample(jax.random.fold_in(key, index)))(row_indices(rows))
