"""Policies of rematerialization: what the backward pass keeps of a block, and what it recomputes."""

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx

from transfer_jax.models.remat_names import Remat

Function = Callable[..., Any]
_dots = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
_POLICIES: dict[str, Callable[..., Any]] = {
    "dots": _dots,
    "block": jax.checkpoint_policies.nothing_saveable,
    "offload": jax.checkpoint_policies.offload_dot_with_no_batch_dims("device", "pinned_host"),
}


def rematerialized(run: Function, remat: Remat) -> Function:
    """Returns a function `(block, x, rngs)` whose backward pass follows a policy."""
    return run if remat == "none" else nnx.remat(run, policy=_POLICIES[remat])


def rematerialized_function(function: Function, remat: Remat) -> Function:
    """Returns a function of arrays whose backward pass follows a policy."""
    return function if remat == "none" else jax.checkpoint(function, policy=_POLICIES[remat])
