"""Augmentation of a batch inside the training step: mixup, CutMix, brightness and flips of features."""

import jax
import jax.numpy as jnp

from transfer_jax.freezing.phase import Flips
from transfer_jax.nn.batch_shard import gather_rows, global_rows, row_indices, sample_rows


def mix(
    key: jax.Array, images: jax.Array, targets: jax.Array, *, mixup: float, cutmix: float
) -> tuple[jax.Array, jax.Array]:
    """Mixes each image of a batch with another one, and their targets in the same proportion.

    If mixup and CutMix are both on, each batch uses one of them at random. Sources: mixup, Zhang et al. 2017,
    arXiv:1710.09412; CutMix, Yun et al. 2019, arXiv:1905.04899.

    Args:
        key: Random key.
        images: Normalized images `(batch, height, width, channels)`.
        targets: Targets `(batch, classes)`.
        mixup: Parameter of the Beta distribution of mixup; 0 is off.
        cutmix: Parameter of the Beta distribution of CutMix; 0 is off.

    Returns:
        The mixed images and targets.
    """
    coin, partner, *keys = jax.random.split(key, 5)
    rows = len(images)
    other = jax.random.permutation(partner, global_rows(rows))[row_indices(rows)]
    other_images, other_targets = (gather_rows(x)[other] for x in (images, targets))
    choices = []
    if mixup:
        weight = jax.random.beta(keys[0], mixup, mixup)
        choices.append((weight * images + (1 - weight) * other_images, weight))
    if cutmix:
        height, width = images.shape[1:3]
        inside = _box(keys[1], keys[2], (height, width), cutmix)[None, :, :, None]
        choices.append((jnp.where(inside, other_images, images), 1 - inside.mean()))
    if not choices:
        return images, targets
    pick = jax.random.bernoulli(coin) if len(choices) == 2 else 0
    mixed = jnp.where(pick, choices[-1][0], choices[0][0])
    weight = jnp.where(pick, choices[-1][1], choices[0][1])
    return mixed, weight * targets + (1 - weight) * other_targets


def _box(size_key: jax.Array, place_key: jax.Array, shape: tuple[int, int], alpha: float) -> jax.Array:
    """Returns a mask, True in a random box whose fraction of the area is 1 - Beta(alpha, alpha)."""
    side = jnp.sqrt(1 - jax.random.beta(size_key, alpha, alpha))
    centre = jax.random.uniform(place_key, (2,))
    inside = [
        jnp.abs((jnp.arange(size) + 0.5) / size - centre[axis]) < side / 2 for axis, size in enumerate(shape)
    ]
    return inside[0][:, None] & inside[1][None, :]


def brighten(key: jax.Array, features: jax.Array, level: float) -> jax.Array:
    """Shifts each channel of each image's features by a random fraction of its range.

    Source: Bär et al. 2024 (FroFA), arXiv:2403.10519, brightness with a shift per channel. Pooled features
    have one value per channel; their range is that of all channels of the image.

    Args:
        key: Random key.
        features: Features `(batch, …, channels)`.
        level: Largest shift as a fraction of the range.
    """
    places = tuple(range(1, features.ndim - 1)) or (1,)
    low, high = (reduce(features, axis=places, keepdims=True) for reduce in (jnp.min, jnp.max))
    shape = (*(1,) * (features.ndim - 2), features.shape[-1])
    shift = sample_rows(
        key, len(features), lambda key: jax.random.uniform(key, shape, features.dtype, -level, level)
    )
    return features + shift * (high - low)


def flip(key: jax.Array, features: jax.Array, flips: Flips) -> jax.Array:
    """Flips or rotates the feature maps of each image at random.

    The features of a flipped image are approximately the flipped features; they differ because the weights
    and strides of a network are not symmetric.

    Args:
        key: Random key.
        features: Feature maps `(batch, height, width, channels)`; square for `turns`.
        flips: `horizontal`; `both`, which adds vertical flips; or `turns`, which adds rotations by 90
            degrees: all eight symmetries of the square.
    """
    coins = sample_rows(key, len(features), lambda key: jax.random.bernoulli(key, 0.5, (3, 1, 1, 1)))
    left_right, up_down, transposed = jnp.moveaxis(coins, 1, 0)
    features = jnp.where(left_right, features[:, :, ::-1], features)
    if flips != "horizontal":
        features = jnp.where(up_down, features[:, ::-1], features)
    if flips == "turns":
        features = jnp.where(transposed, features.swapaxes(1, 2), features)
    return features
