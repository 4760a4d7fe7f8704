"""Blocks whose parameters are sharded over devices, and are gathered while the block runs.

The forward pass gathers a block, and the backward pass gathers it again, so that few whole blocks are in
memory at a time (Zhao et al. 2023, arXiv:2304.11277, FSDP).
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from flax import nnx

from transfer_jax.models.remat import rematerialized
from transfer_jax.models.remat_names import Remat
from transfer_jax.nn import batch_shard

_NOT_KEPT = (
    *("all_gather", "reshape", "transpose", "squeeze", "expand_dims", "broadcast_in_dim", "slice", "split"),
    "copy",
)
"""Operations that the backward pass repeats: gathering, and operations without arithmetic on its result."""


def gathered_block(name: str, *, remat: Remat) -> Callable[[nnx.Module, Any, nnx.Rngs | None], Any]:
    """Returns a function `(block, x, rngs)` that gathers the parameters of a block and runs it.

    Args:
        name: The path of the block.
        remat: Activations inside the block that the backward pass recomputes too.
    """
    run = functools.partial(_run, name)
    return nnx.remat(run, policy=_keeps) if remat == "none" else rematerialized(run, remat)


def _run(name: str, block: nnx.Module, x: Any, rngs: nnx.Rngs | None) -> Any:
    graphdef, state = nnx.split(block)
    leaves = {path: variable.get_value() for path, variable in nnx.to_flat_state(state)}
    names = {path: "/".join((name, *map(str, path))) for path in leaves}
    shards = {names[path]: value for path, value in leaves.items()}
    whole = batch_shard.gather(shards, {path: value.dtype for path, value in shards.items()})
    gathered = nnx.from_flat_state({path: whole[name] for path, name in names.items()})
    copy: Any = nnx.merge(graphdef, gathered, copy=True)
    x = copy(x, rngs=rngs)
    nnx.update(block, nnx.state(copy, nnx.BatchStat))
    return x


def _keeps(primitive: Any, *inputs: Any, **parameters: Any) -> bool:
    """Returns True for a result that the backward pass keeps: every one but gathered parameters."""
    if primitive.name == "convert_element_type":
        return np.dtype(parameters["new_dtype"]).itemsize <= inputs[0].dtype.itemsize
    return primitive.name not in _NOT_KEPT
