"""Batch normalization by the statistics of the batch, with a backward pass of its own.

Automatic differentiation keeps several arrays of the size of the input, in float32. Here the backward pass
keeps the input in its own dtype, and a few numbers for each channel. Both passes read the input twice: once
for sums over pixels, which are exchanged together if the batch is sharded, and once for the result. Source:
Ioffe and Szegedy 2015, arXiv:1502.03167.
"""

import functools

import jax
import jax.numpy as jnp

from transfer_jax.nn import batch_shard

_PIXELS = (0, 1, 2)
_Kept = tuple[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array]


def batch_norm(
    x: jax.Array, scale: jax.Array, bias: jax.Array, *, epsilon: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns the normalized input in its dtype, and mean and variance per channel in at least float32.

    The statistics are those of all shards of the batch if they sync (`nn.batch_shard`). They have no gradient
    of their own.

    Args:
        x: The input, `(batch, height, width, channels)`.
        scale: The scale per channel.
        bias: The bias per channel.
        epsilon: Value added to the variance.
    """
    return _batch_norm(x, scale, bias, epsilon, batch_shard.statistics_axes())


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _batch_norm(
    x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float, axes: tuple[str, ...]
) -> tuple[jax.Array, jax.Array, jax.Array]:
    return _forward(x, scale, bias, epsilon, axes)[0]


def _forward(
    x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float, axes: tuple[str, ...]
) -> tuple[tuple[jax.Array, jax.Array, jax.Array], _Kept]:
    wide = _wide(x)
    mean, square = _means(axes, wide, wide * wide)[1]
    var = jnp.maximum(square - mean * mean, 0.0)
    inverse = jax.lax.rsqrt(var + epsilon)
    gain = scale * inverse
    y = (wide * gain + (bias - mean * gain)).astype(x.dtype)
    return (y, mean, var), (x, scale, bias, mean, inverse)


def _backward(
    epsilon: float, axes: tuple[str, ...], kept: _Kept, cotangents: tuple[jax.Array, jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array, jax.Array]:
    del epsilon
    x, scale, bias, mean, inverse = kept
    gradient, centered = _wide(cotangents[0]), _wide(x) - mean
    sums, (level, slope) = _means(axes, gradient, gradient * centered)
    of_scale, of_bias = (sums[1] * inverse).astype(scale.dtype), sums[0].astype(bias.dtype)
    of_x = scale * inverse * (gradient - level - centered * (slope * inverse * inverse))
    return of_x.astype(x.dtype), of_scale, of_bias


_batch_norm.defvjp(_forward, _backward)


def _wide(x: jax.Array) -> jax.Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _means(axes: tuple[str, ...], *arrays: jax.Array) -> tuple[list[jax.Array], list[jax.Array]]:
    """Returns sums per channel on this device, and means per channel over the devices along some axes."""
    sums = [x.sum(_PIXELS) for x in arrays]
    count = arrays[0].size // arrays[0].shape[-1]
    if not axes:
        return sums, [total / count for total in sums]
    count *= jax.lax.axis_size(axes)
    return sums, [total / count for total in jax.lax.psum(sums, axes)]
