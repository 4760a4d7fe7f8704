"""The exchange of parameters and gradients between devices, in a precision of choice.

An array that is sharded along `fsdp` is gathered in the precision of the computation, and its gradient is
summed and scattered in the precision of the exchange. The gradients of other arrays are summed. The results
are in float32, whatever the precision of the exchange.
"""

import functools
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from transfer_jax.distributed.meshes import FSDP
from transfer_jax.distributed.partition_specs import Specs

_Dtypes = tuple[jnp.dtype, jnp.dtype]


def gather(
    arrays: Mapping[str, jax.Array], dtypes: Mapping[str, jnp.dtype], *, specs: Specs, exchanged: jnp.dtype
) -> dict[str, jax.Array]:
    """Returns whole arrays in other dtypes, from shards.

    Args:
        arrays: The shards by path.
        dtypes: The dtype of each whole array.
        specs: The spec of each array; those without one are whole.
        exchanged: The dtype in which gradients are summed over the devices.
    """

    def whole(path: str, array: jax.Array) -> jax.Array:
        spec = specs.get(path, PartitionSpec())
        if FSDP not in spec:
            return array.astype(dtypes[path])
        return _gathered(array, spec.index(FSDP), (array.dtype, jnp.dtype(dtypes[path])), exchanged)

    return {path: whole(path, array) for path, array in arrays.items()}


def mean(
    gradient: jax.Array, spec: PartitionSpec, *, axes: Sequence[str], scattered: bool, exchanged: jnp.dtype
) -> jax.Array:
    """Returns the mean of a gradient over all devices, in float32; its shard if the array is sharded.

    Args:
        gradient: The gradient on this device.
        spec: The spec of the array.
        axes: The axes of the mesh that split the batch.
        scattered: Whether gradients of sharded arrays are sums over `fsdp` already, as `gather` returns them.
        exchanged: The dtype in which gradients are summed over the devices.
    """
    summed = axes
    if FSDP in spec:
        gradient = gradient if scattered else _scattered_sum(gradient, spec.index(FSDP), exchanged)
        summed = [axis for axis in axes if axis != FSDP]
    if any(jax.lax.axis_size(axis) > 1 for axis in summed):
        gradient = _sum(lambda x: jax.lax.psum(x, tuple(summed)), gradient, exchanged)
    return gradient.astype(jnp.float32) / jax.lax.axis_size(tuple(axes))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _gathered(shard: jax.Array, axis: int, dtypes: _Dtypes, exchanged: jnp.dtype) -> jax.Array:
    """Returns a whole array; `dtypes` are those of the shard and of the whole array."""
    return _gathered_forward(shard, axis, dtypes, exchanged)[0]


def _gathered_forward(
    shard: jax.Array, axis: int, dtypes: _Dtypes, exchanged: jnp.dtype
) -> tuple[jax.Array, None]:
    del exchanged
    return jax.lax.all_gather(shard.astype(dtypes[1]), FSDP, axis=axis, tiled=True), None


def _gathered_backward(
    axis: int, dtypes: _Dtypes, exchanged: jnp.dtype, kept: None, gradient: jax.Array
) -> tuple[jax.Array]:
    del kept
    return (_scattered_sum(gradient, axis, exchanged).astype(dtypes[0]),)


_gathered.defvjp(_gathered_forward, _gathered_backward)


def _scattered_sum(gradient: jax.Array, axis: int, exchanged: jnp.dtype) -> jax.Array:
    """Returns this device's shard of the sum of a gradient over `fsdp`."""
    scatter = functools.partial(jax.lax.psum_scatter, axis_name=FSDP, scatter_dimension=axis, tiled=True)
    return _sum(scatter, gradient, exchanged)


def _sum(sums: Callable[[jax.Array], jax.Array], gradient: jax.Array, exchanged: jnp.dtype) -> jax.Array:
    """Returns a sum over devices of a gradient that each of them rounds to the precision of the exchange.

    CPUs exchange it in float32: there, XLA aborts for such sums in bfloat16.
    """
    rounded = gradient.astype(exchanged)
    wide = jnp.promote_types(exchanged, jnp.float32)
    if wide == exchanged:
        return sums(rounded)
    return jax.lax.platform_dependent(
        rounded,
        cpu=lambda x: sums(x.astype(wide)),
        default=lambda x: sums(x).astype(wide),
    )
