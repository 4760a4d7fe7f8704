"""A transformer as plain functions of a nested dictionary, for the cases that need only JAX."""

from typing import Any

import jax
import jax.numpy as jnp


def layer_params(key: jax.Array, width: int) -> dict[str, Any]:
    """Returns the parameters of a layer."""
    keys = jax.random.split(key, 4)

    def dense(key, inputs, outputs):
        kernel = jax.random.normal(key, (inputs, outputs)) / inputs**0.5
        return {"kernel": kernel, "bias": jnp.zeros(outputs)}

    return {
        "norm1": {"scale": jnp.ones(width), "bias": jnp.zeros(width)},
        "qkv": dense(keys[0], width, 3 * width),
        "out": dense(keys[1], width, width),
        "norm2": {"scale": jnp.ones(width), "bias": jnp.zeros(width)},
        "up": dense(keys[2], width, 4 * width),
        "down": dense(keys[3], 4 * width, width),
    }


def layer(params: dict[str, Any], x: jax.Array, heads: int, *, causal: bool = False) -> jax.Array:
    """Applies a layer to tokens `(batch, tokens, width)`."""
    batch, tokens, width = x.shape
    h = dense(params["qkv"], norm(params["norm1"], x))
    query, key, value = jnp.moveaxis(h.reshape(batch, tokens, 3, heads, width // heads), 2, 0)
    mixed = jax.nn.dot_product_attention(query, key, value, is_causal=causal)
    x = x + dense(params["out"], mixed.reshape(batch, tokens, width))
    return x + dense(params["down"], jax.nn.gelu(dense(params["up"], norm(params["norm2"], x))))


def norm(params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    """Normalizes each token."""
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred * jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + 1e-6)
    return scaled * params["scale"] + params["bias"]


def dense(params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    """Applies a dense layer, with a low-rank update of its kernel if there is one."""
    y = x @ params["kernel"]
    if "lora_a" in params:
        y = y + (x @ params["lora_a"]) @ params["lora_b"]
    return y + params["bias"] if "bias" in params else y


def patches(images: jax.Array, side: int) -> jax.Array:
    """Returns the patches of images, `(batch, patches, values)`."""
    batch, height, width, channels = images.shape
    apart = images.reshape(batch, height // side, side, width // side, side, channels)
    return apart.transpose(0, 1, 3, 2, 4, 5).reshape(batch, -1, side * side * channels)
