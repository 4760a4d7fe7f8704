"""Attention that keeps its probabilities, and no other array of their size, for the backward pass."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax


def plain_attention(
    query: jax.Array, key: jax.Array, value: jax.Array, bias: jax.Array | None = None
) -> jax.Array:
    """Returns `softmax(query key^T / sqrt(channels) + bias) value`, `(batch, tokens, heads, channels)`.

    Logits and the softmax are in at least float32, as in `jax.nn.dot_product_attention`, whose gradients keep
    two more arrays of the size of the probabilities.

    Args:
        query: Array `(batch, tokens, heads, channels)`.
        key: Array of the same axes; it may have another number of tokens.
        value: Array of the shape of `key`.
        bias: Array that is added to the logits, of a shape that broadcasts to `(batch, heads, tokens of the
            queries, tokens of the keys)`; None for none.
    """
    return _attention(query, key, value, bias).reshape(query.shape)


@jax.custom_vjp
def _attention(query: jax.Array, key: jax.Array, value: jax.Array, bias: jax.Array | None) -> jax.Array:
    """Returns the attention as `(batch, tokens, heads x channels)`, which the next layer keeps too."""
    return _fwd(query, key, value, bias)[0]


def _fwd(query: jax.Array, key: jax.Array, value: jax.Array, bias: jax.Array | None) -> tuple[jax.Array, Any]:
    logits = _product("btnc,bsnc->bnts", query, key) * query.shape[-1] ** -0.5
    if bias is not None:
        logits = logits + bias.astype(logits.dtype)
    powers = jnp.exp(logits - lax.stop_gradient(logits.max(-1, keepdims=True)))
    probabilities = (powers / powers.sum(-1, keepdims=True)).astype(key.dtype)
    out = jnp.einsum("bnts,bsnc->btnc", probabilities, value).reshape(*query.shape[:2], -1)
    return out, (query, key, value, bias, probabilities, out)


def _bwd(saved: Any, gradient: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array | None]:
    (query, key, value, bias, probabilities, out), gradient = lax.optimization_barrier((saved, gradient))
    gradient, out = gradient.reshape(query.shape), out.reshape(query.shape)
    dvalue = jnp.einsum("bnts,btnc->bsnc", probabilities, gradient)
    dprobabilities = _product("btnc,bsnc->bnts", gradient, value)
    wide = dprobabilities.dtype
    # The sum over the keys of each probability times its gradient.
    inner = (gradient.astype(wide) * out.astype(wide)).sum(-1).swapaxes(1, 2)[..., None]
    dlogits = probabilities.astype(wide) * (dprobabilities - inner)
    dbias = None if bias is None else _of_shape(dlogits, bias)
    dlogits = (dlogits * query.shape[-1] ** -0.5).astype(query.dtype)
    dquery = jnp.einsum("bnts,bsnc->btnc", dlogits, key)
    dkey = jnp.einsum("bnts,btnc->bsnc", dlogits, query)
    return dquery, dkey, dvalue, dbias


_attention.defvjp(_fwd, _bwd)


def _product(axes: str, a: jax.Array, b: jax.Array) -> jax.Array:
    """Returns a product of arrays in at least float32."""
    wide = jnp.promote_types(a.dtype, jnp.float32)
    return jnp.einsum(axes, a, b, preferred_element_type=wide)


def _of_shape(gradient: jax.Array, array: jax.Array) -> jax.Array:
    """Returns the gradient of an array that was broadcast."""
    gradient = gradient.sum(tuple(range(gradient.ndim - array.ndim)))
    axes = tuple(axis for axis, size in enumerate(array.shape) if size != gradient.shape[axis])
    return gradient.sum(axes, keepdims=True).astype(array.dtype)
