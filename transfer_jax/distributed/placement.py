"""The placement of an array on the devices of a mesh."""

from typing import Any

import jax
import numpy as np
from jax import core
from jax.sharding import NamedSharding

from transfer_jax.distributed import processes


def placed(leaf: Any, sharding: NamedSharding) -> Any:
    """Returns an array, or its shape, with a sharding. All processes must pass the same array."""
    if isinstance(leaf, core.Tracer) or (isinstance(leaf, jax.Array) and leaf.sharding == sharding):
        return leaf
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
    if isinstance(leaf, jax.Array) and leaf.is_fully_addressable == sharding.is_fully_addressable:
        return jax.device_put(leaf, sharding)
    host = processes.to_host(leaf)
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])


def split_rows(array: Any, axis: int, count: int) -> Any:
    """Returns the shards of an array along a new first axis.

    Args:
        array: The array, or its shape.
        axis: The axis that is split.
        count: Number of shards.
    """
    shape = array.shape
    parted = (*shape[:axis], count, shape[axis] // count, *shape[axis + 1 :])
    if isinstance(array, jax.ShapeDtypeStruct):
        return jax.ShapeDtypeStruct((count, *parted[:axis], *parted[axis + 1 :]), array.dtype)
    return np.moveaxis(np.asarray(array).reshape(parted), axis, 0)
