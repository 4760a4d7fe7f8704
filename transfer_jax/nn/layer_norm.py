"""Layer normalization that keeps its input and two numbers for each row for the backward pass."""

import functools

import jax
import jax.numpy as jnp
from jax import lax


def layer_norm(x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float) -> jax.Array:
    """Normalizes `(…, channels)` over its channels (Ba et al. 2016, arXiv:1607.06450).

    Statistics are computed in at least float32. JAX would keep four arrays of the size of `x` for the
    backward pass; this keeps `x` alone.

    Args:
        x: Array `(…, channels)`.
        scale: Scale of each channel.
        bias: Value added to each channel.
        epsilon: Value added to the variance.
    """
    dtype = jnp.result_type(x, scale, bias)
    return _layer_norm(epsilon, x.astype(dtype), scale.astype(dtype), bias.astype(dtype))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _layer_norm(epsilon: float, x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
    return _fwd(epsilon, x, scale, bias)[0]


def _fwd(epsilon: float, x: jax.Array, scale: jax.Array, bias: jax.Array) -> tuple[jax.Array, tuple]:
    wide = _wide(x)
    mean, square = wide.mean(-1, keepdims=True), lax.square(wide).mean(-1, keepdims=True)
    inverse = lax.rsqrt(jnp.maximum(0.0, square - lax.square(mean)) + epsilon)
    y = (x - mean) * (inverse * scale) + bias
    return y.astype(x.dtype), (x, mean, inverse, scale)


def _bwd(epsilon: float, saved: tuple, gradient: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    # XLA would compute what depends on `saved` alone in the forward pass, and keep it.
    (x, mean, inverse, scale), gradient = lax.optimization_barrier((saved, gradient))
    gradient = _wide(gradient)
    normalized = (_wide(x) - mean) * inverse
    rows = tuple(range(x.ndim - 1))
    inner = gradient * scale
    along = (inner * normalized).mean(-1, keepdims=True)
    dx = inverse * (inner - inner.mean(-1, keepdims=True) - normalized * along)
    dscale = (gradient * normalized).sum(rows)
    return dx.astype(x.dtype), dscale.astype(scale.dtype), gradient.sum(rows).astype(scale.dtype)


_layer_norm.defvjp(_fwd, _bwd)


def _wide(x: jax.Array) -> jax.Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
