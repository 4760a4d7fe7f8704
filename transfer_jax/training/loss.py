"""The targets of a loss with label smoothing, and the weights of classes."""

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


def balanced_weights(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Returns weights `(classes,)` inverse to the class frequencies; their mean over the images is 1."""
    counts = np.bincount(labels, minlength=num_classes)
    return (len(labels) / (np.count_nonzero(counts) * np.maximum(counts, 1))).astype(np.float32)
