"""How cached features are varied from step to step."""

import jax
import jax.numpy as jnp

from transfer_jax.freezing.phase import Flips
from transfer_jax.nn.batch_shard import sample_rows


def brighten(key: jax.Array, features: jax.Array, level: float) -> jax.Array:
    """Features with each channel of each image shifted by a random share of its range, at most `level`.

    Source: Bär et al. 2024 (FroFA), arXiv:2403.10519, brightness with a shift a channel. Pooled features
    have one value a channel; their range is that of all channels of the image.

    Args:
        key: Source of the shifts.
        features: `(batch, …, channels)`.
        level: Largest shift as a share of the range.
    """
    places = tuple(range(1, features.ndim - 1)) or (1,)
    low, high = (reduce(features, axis=places, keepdims=True) for reduce in (jnp.min, jnp.max))
    shape = (*(1,) * (features.ndim - 2), features.shape[-1])
    shift = sample_rows(
        key, len(features), lambda key: jax.random.uniform(key, shape, features.dtype, -level, level)
    )
    return features + shift * (high - low)


def flipped(key: jax.Array, features: jax.Array, flips: Flips) -> jax.Array:
    """Feature maps, each flipped or turned at random, as its image might have been.

    A convolutional network gives the flipped map for a flipped image, but for its weights and strides, which
    have a left and a right.

    Args:
        key: Source of the choices.
        features: `(batch, height, width, channels)`; square for `turns`.
        flips: `horizontal`; `both`, vertically too; `turns`, turned by quarters too, which with the flips
            makes all eight symmetries of the square.
    """
    coins = sample_rows(key, len(features), lambda key: jax.random.bernoulli(key, 0.5, (3, 1, 1, 1)))
    left_right, up_down, transposed = jnp.moveaxis(coins, 1, 0)
    features = jnp.where(left_right, features[:, :, ::-1], features)
    if flips != "horizontal":
        features = jnp.where(up_down, features[:, ::-1], features)
    if flips == "turns":
        features = jnp.where(transposed, features.swapaxes(1, 2), features)
    return features
