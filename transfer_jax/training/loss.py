"""Cross-entropy with smoothing, class weights, and targets mixed from two images."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from transfer_jax.nn.batch_shard import gather_rows, global_rows, row_indices


def soft_targets(labels: jax.Array, num_classes: int, smoothing: float) -> jax.Array:
    """Targets `(batch, classes)`; `smoothing` of each is spread over all classes (arXiv:1512.00567)."""
    return optax.smooth_labels(jax.nn.one_hot(labels, num_classes), smoothing)


def cross_entropy(logits: jax.Array, targets: jax.Array, weights: jax.Array) -> jax.Array:
    """Loss of each image `(batch,)`.

    Args:
        logits: `(batch, classes)`.
        targets: `(batch, classes)`, sums to 1 over the classes.
        weights: `(classes,)`, the weight of each class; ones for the plain loss.
    """
    return optax.softmax_cross_entropy(logits, targets) * (targets @ weights)


def balanced_weights(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Weights `(classes,)` inverse to each class's frequency; their mean over the images is 1."""
    counts = np.bincount(labels, minlength=num_classes)
    return (len(labels) / (np.count_nonzero(counts) * np.maximum(counts, 1))).astype(np.float32)


def mix(
    key: jax.Array, images: jax.Array, targets: jax.Array, *, mixup: float, cutmix: float
) -> tuple[jax.Array, jax.Array]:
    """Mixes each image of a batch with another one, and their targets alike.

    Where both are on, a coin decides for the batch. Sources: mixup, Zhang et al. 2017, arXiv:1710.09412;
    CutMix, Yun et al. 2019, arXiv:1905.04899.

    Args:
        key: Source of the partners and shares.
        images: Normalized images `(batch, height, width, channels)`.
        targets: `(batch, classes)`.
        mixup: Parameter of mixup's Beta distribution; 0 is off.
        cutmix: The same of CutMix.
    """
    coin, partner, *shares = jax.random.split(key, 5)
    rows = len(images)
    other = jax.random.permutation(partner, global_rows(rows))[row_indices(rows)]
    other_images, other_targets = (gather_rows(x)[other] for x in (images, targets))
    choices = []
    if mixup:
        share = jax.random.beta(shares[0], mixup, mixup)
        choices.append((share * images + (1 - share) * other_images, share))
    if cutmix:
        height, width = images.shape[1:3]
        inside = _box(shares[1], shares[2], (height, width), cutmix)[None, :, :, None]
        choices.append((jnp.where(inside, other_images, images), 1 - inside.mean()))
    if not choices:
        return images, targets
    pick = jax.random.bernoulli(coin) if len(choices) == 2 else 0
    mixed = jnp.where(pick, choices[-1][0], choices[0][0])
    share = jnp.where(pick, choices[-1][1], choices[0][1])
    return mixed, share * targets + (1 - share) * other_targets


def _box(size_key: jax.Array, place_key: jax.Array, shape: tuple[int, int], alpha: float) -> jax.Array:
    """A mask, True in a random box whose share of the area is drawn from 1 - Beta(alpha, alpha)."""
    side = jnp.sqrt(1 - jax.random.beta(size_key, alpha, alpha))
    centre = jax.random.uniform(place_key, (2,))
    inside = [
        jnp.abs((jnp.arange(size) + 0.5) / size - centre[axis]) < side / 2 for axis, size in enumerate(shape)
    ]
    return inside[0][:, None] & inside[1][None, :]
