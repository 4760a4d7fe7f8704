"""Cross-entropy with label smoothing and class weights."""

import jax
import numpy as np
import optax


def soft_targets(labels: jax.Array, num_classes: int, smoothing: float) -> jax.Array:
    """Returns targets `(batch, classes)` with label smoothing.

    Source: Szegedy et al. 2015, arXiv:1512.00567.

    Args:
        labels: Class of each image, `(batch,)`.
        num_classes: Number of classes.
        smoothing: Fraction of each target that is distributed evenly over all classes; 0 for one-hot targets.
    """
    return optax.smooth_labels(jax.nn.one_hot(labels, num_classes), smoothing)


def cross_entropy(logits: jax.Array, targets: jax.Array, weights: jax.Array) -> jax.Array:
    """Returns the loss of each image, `(batch,)`.

    Args:
        logits: Logits `(batch, classes)`.
        targets: Targets `(batch, classes)`, which sum to 1 over the classes.
        weights: Weight of each class, `(classes,)`; ones for the unweighted loss.
    """
    return optax.softmax_cross_entropy(logits, targets) * (targets @ weights)


def balanced_weights(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Returns weights `(classes,)` inverse to the class frequencies; their mean over the images is 1."""
    counts = np.bincount(labels, minlength=num_classes)
    return (len(labels) / (np.count_nonzero(counts) * np.maximum(counts, 1))).astype(np.float32)
