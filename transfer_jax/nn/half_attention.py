"""Attention in half precision in operations of XLA, with logits that are rounded to it."""

import jax
import jax.numpy as jnp


def half_attention(
    query: jax.Array, key: jax.Array, value: jax.Array, bias: jax.Array | None = None
) -> jax.Array:
    """Returns the attention with logits in the dtype of the inputs, and a softmax in float32.

    Logits and probabilities take half the bytes of those in `plain_attention`. Arguments are those of
    `nn.attention.attend`.
    """
    batch, tokens, heads, channels = query.shape
    query = query * jnp.asarray(channels**-0.5, query.dtype)
    if key.shape[2] == heads:
        logits = jnp.einsum("bqhc,bkhc->bhqk", query, key)
        weights = softmax(logits if bias is None else logits + bias.astype(logits.dtype))
        return jnp.einsum("bhqk,bkhc->bqhc", weights, value)
    query = query.reshape(batch, tokens, key.shape[2], -1, channels)
    logits = jnp.einsum("bqhgc,bkhc->bhgqk", query, key)
    if bias is not None:
        logits += bias.astype(logits.dtype).reshape(len(bias), *logits.shape[1:3], *bias.shape[2:])
    mixed = jnp.einsum("bhgqk,bkhc->bqhgc", softmax(logits), value)
    return mixed.reshape(batch, tokens, heads, channels)


@jax.custom_vjp
def softmax(logits: jax.Array) -> jax.Array:
    """Returns the softmax over the last axis, computed in float32, in the dtype of the logits.

    Its gradient is computed from the rounded probabilities, which alone are kept for it.
    """
    return jax.nn.softmax(logits.astype(jnp.float32), axis=-1).astype(logits.dtype)


def _forward(logits: jax.Array) -> tuple[jax.Array, jax.Array]:
    weights = softmax(logits)
    return weights, weights


def _backward(weights: jax.Array, gradient: jax.Array) -> tuple[jax.Array]:
    exact = weights.astype(jnp.float32)
    product = exact * gradient.astype(jnp.float32)
    return ((product - exact * product.sum(-1, keepdims=True)).astype(weights.dtype),)


softmax.defvjp(_forward, _backward)
