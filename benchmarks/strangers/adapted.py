"""A transformer of which few parameters train: low-rank updates of its kernels, or its biases."""

import jax
import jax.numpy as jnp

from strangers.case import Case, images, random_like
from strangers.transformer import dense, layer, layer_params, patches
from transfer_jax.freezing import labels, match

_WIDTH, _DEPTH, _HEADS, _RANK = 192, 12, 3, 8


def lora(examples: int, size: int) -> Case:
    """Returns ViT-Ti/16 with low-rank updates of the queries, keys and values in the upper half."""
    params = _params(size)
    keys = jax.random.split(jax.random.key(3), _DEPTH)
    for each, key in zip(params["layers"][_DEPTH // 2 :], keys, strict=False):
        each["qkv"]["lora_a"] = jax.random.normal(key, (_WIDTH, _RANK)) / _WIDTH**0.5
        each["qkv"]["lora_b"] = jnp.zeros((_RANK, 3 * _WIDTH))
    return _case("low-rank updates", params, "lora_|head", examples, size)


def biases(examples: int, size: int) -> Case:
    """Returns ViT-Ti/16 whose biases in the upper half train."""
    upper = "|".join(map(str, range(_DEPTH // 2, _DEPTH)))
    return _case("biases", _params(size), f"layers/({upper})/.*bias|head", examples, size)


def _params(size: int):
    keys = jax.random.split(jax.random.key(0), _DEPTH + 3)
    return {
        "embedding": {"kernel": jax.random.normal(keys[0], (768, _WIDTH)) / 28, "bias": jnp.zeros(_WIDTH)},
        "positions": jax.random.normal(keys[1], ((size // 16) ** 2, _WIDTH)) / 14,
        "layers": [layer_params(key, _WIDTH) for key in keys[3:]],
        "head": {"kernel": jax.random.normal(keys[2], (_WIDTH, 10)) / 14, "bias": jnp.zeros(10)},
    }


def _case(trains: str, params, pattern: str, examples: int, size: int) -> Case:
    def function(params, state, batch, key):
        x = dense(params["embedding"], patches(batch["image"], 16)) + params["positions"]
        for each in params["layers"]:
            x = layer(each, x, _HEADS)
        return dense(params["head"], x.mean(1))

    params = random_like(params)
    tokens = (size // 16) ** 2
    found = labels(params, match(pattern))
    return Case(
        f"{trains} of the upper half",
        function,
        params,
        found,
        {"image": images(examples, size)},
        4 * tokens * _WIDTH,
    )
