"""A pair of towers for images and texts with a contrastive similarity, as in CLIP."""

import jax
import jax.numpy as jnp

from strangers.case import Case, images, random_like
from strangers.transformer import dense, layer, layer_params, norm, patches
from transfer_jax.freezing import labels, match

_WIDTH, _DEPTH, _HEADS, _TOKENS, _WORDS, _SHARED = 192, 6, 3, 32, 1000, 128


def towers(examples: int, size: int) -> Case:
    """Returns two towers: that of images is frozen, the last layer of that of texts trains.

    Args:
        examples: Pairs of a batch.
        size: Side of the images in pixels.
    """
    keys = iter(jax.random.split(jax.random.key(0), 2 * _DEPTH + 8))

    def tower(inputs: int, positions: int):
        return {
            "embedding": {"kernel": jax.random.normal(next(keys), (inputs, _WIDTH)) / 16},
            "positions": jax.random.normal(next(keys), (positions, _WIDTH)) / 16,
            "layers": [layer_params(next(keys), _WIDTH) for _ in range(_DEPTH)],
            "norm": {"scale": jnp.ones(_WIDTH), "bias": jnp.zeros(_WIDTH)},
            "projection": {"kernel": jax.random.normal(next(keys), (_WIDTH, _SHARED)) / 16},
        }

    image = tower(16 * 16 * 3, (size // 16) ** 2)
    params = random_like({"image": image, "text": tower(_WORDS, _TOKENS), "scale": jnp.float32(2)})

    def embedded(tower, x, *, causal):
        x = x + tower["positions"]
        for each in tower["layers"]:
            x = layer(each, x, _HEADS, causal=causal)
        x = norm(tower["norm"], x)
        pooled = x[:, -1] if causal else x.mean(1)
        shared = dense(tower["projection"], pooled)
        return shared / jnp.linalg.norm(shared, axis=-1, keepdims=True)

    def function(params, state, batch, key):
        image, text = params["image"], params["text"]
        one = embedded(image, dense(image["embedding"], patches(batch["image"], 16)), causal=False)
        other = embedded(text, text["embedding"]["kernel"][batch["text"]], causal=True)
        return jnp.exp(params["scale"]) * one @ other.T

    tokens = jax.random.randint(jax.random.key(2), (examples, _TOKENS), 0, _WORDS)
    found = labels(params, match(f"^scale$|^text/(layers/{_DEPTH - 1}|norm|projection)/"))
    return Case(
        trains="last layer of the text",
        function=function,
        params=params,
        labels=found,
        batch={"image": images(examples, size), "text": tokens},
        block_bytes=4 * (_SHARED + _TOKENS * _WIDTH),
    )
