"""What is done to gradients and features besides: the pull to the pretrained weights, and FroFA's shifts."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from transfer_jax.models.functional import Arrays, block_of


def pulled(
    grads: Arrays, params: Arrays, anchor: Mapping[str, jax.Array], *, backbone: float, head: float
) -> Arrays:
    """Gradients of the loss with `backbone / 2 |w - w0|^2 + head / 2 |w_head|^2` added to it.

    Source: Li et al. 2018 (L2-SP), arXiv:1802.01483.

    Args:
        grads: Gradients of the loss alone.
        params: The parameters w, of the same paths.
        anchor: The pretrained parameters w0 of the backbone.
        backbone: Strength of the pull of the backbone.
        head: Strength of the pull of the head.
    """

    def pull(path: str) -> jax.Array:
        if block_of(path) == "head":
            return head * params[path]
        return backbone * (params[path] - anchor[path])

    return {path: grad + pull(path) for path, grad in grads.items()}


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
    shape = (features.shape[0], *(1,) * (features.ndim - 2), features.shape[-1])
    shift = jax.random.uniform(key, shape, features.dtype, -level, level)
    return features + shift * (high - low)
