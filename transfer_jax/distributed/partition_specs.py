"""The partition specs of arrays on a mesh, by their names and shapes."""

import re
from collections.abc import Mapping
from typing import Any, cast

import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from transfer_jax.distributed.meshes import FSDP, TENSOR

Specs = dict[str, PartitionSpec]

_MIN_SHARDED_SIZE = 1024
"""The smallest number of elements of an array that is sharded along `fsdp`."""
_COLUMNS = re.compile(r"(qkv|fc1)/(kernel|bias)$")
_ROWS = re.compile(r"(proj|fc2)/kernel$")


def partition_spec(mesh: Mesh, name: str, shape: tuple[int, ...], *, fsdp: bool = True) -> PartitionSpec:
    """Returns the spec: `tensor` on the axis set by the name, `fsdp` on the largest divisible axis.

    Args:
        mesh: The mesh.
        name: The path of the array.
        shape: Its shape.
        fsdp: Whether the array is sharded along `fsdp`.
    """
    sizes, spec = mesh.shape, cast(list[str | None], [None] * len(shape))
    tensor, shards = sizes.get(TENSOR, 1), sizes.get(FSDP, 1)
    along = len(shape) - 1 if _COLUMNS.search(name) else 0 if _ROWS.search(name) else None
    if tensor > 1 and along is not None and shape and shape[along] % tensor == 0:
        spec[along] = TENSOR
    free = [axis for axis, used in enumerate(spec) if used is None and shape[axis] % shards == 0]
    if fsdp and shards > 1 and free and np.prod(shape) >= _MIN_SHARDED_SIZE:
        spec[max(free, key=lambda axis: shape[axis])] = FSDP
    return PartitionSpec(*spec)


def batch_axes_specs(mesh: Mesh, arrays: Mapping[str, Any], *, fsdp: bool = True) -> Specs:
    """Returns the specs of arrays, by path, along the axes that split the batch: `fsdp` but not `tensor`."""
    specs = {path: partition_spec(mesh, path, np.shape(x), fsdp=fsdp) for path, x in arrays.items()}
    return {
        path: PartitionSpec(*(axis if axis == FSDP else None for axis in spec))
        for path, spec in specs.items()
    }


def last_name(path: Any) -> str:
    """Returns the path of a parameter: the last dictionary key on the path to a leaf."""
    keys = [key.key for key in path if isinstance(key, jax.tree_util.DictKey)]
    return str(keys[-1]) if keys else ""
