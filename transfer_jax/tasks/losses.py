"""Losses of tasks: functions of the outputs of a head and of targets, with a loss for each example.

Outputs and targets may have more axes in front; the loss has the same.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

Loss = Callable[[jax.Array, jax.Array], jax.Array]
_FOCUS = 2.0
"""Exponent of the focal loss, as in its source."""


def binary_cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Returns the mean over the labels of the binary cross-entropy, `(batch,)`.

    With one-hot targets it trains classifiers of single labels. Source: Wightman et al. 2021 ("ResNet strikes
    back"), arXiv:2110.00476.

    Args:
        logits: `(batch, labels)`.
        targets: Probabilities, `(batch, labels)`.
    """
    return optax.sigmoid_binary_cross_entropy(logits, targets).mean(-1)


def focal(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Returns the focal loss of classes that exclude each other, `(batch,)`; its exponent is 2.

    Source: Lin et al. 2017, arXiv:1708.02002.

    Args:
        logits: `(batch, classes)`.
        targets: Probabilities, `(batch, classes)`.
    """
    log_probabilities = jax.nn.log_softmax(logits)
    focus = (1 - jnp.exp(log_probabilities)) ** _FOCUS
    return -(targets * focus * log_probabilities).sum(-1)


def binary_focal(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Returns the mean over the labels of the binary focal loss, `(batch,)`; see `focal`."""
    return optax.sigmoid_focal_loss(logits, targets, gamma=_FOCUS).mean(-1)


def squared_error(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """Returns the mean squared error over the quantities, `(batch,)`."""
    return ((outputs - targets) ** 2).mean(-1)


def absolute_error(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """Returns the mean absolute error over the quantities, `(batch,)`."""
    return abs(outputs - targets).mean(-1)


def huber(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """Returns the mean Huber loss over the quantities, `(batch,)`; it is linear from one deviation on."""
    return optax.huber_loss(outputs, targets, delta=1.0).mean(-1)


def continuation_log_probabilities(outputs: jax.Array) -> jax.Array:
    """Returns log probabilities `(…, classes)` of the outputs `(…, classes - 1)` of `Ordinal`."""
    above, stays = jax.nn.log_sigmoid(outputs), jax.nn.log_sigmoid(-outputs)
    nothing = jnp.zeros_like(outputs[..., :1])
    reached = jnp.concatenate([nothing, jnp.cumsum(above, -1)], -1)
    return reached + jnp.concatenate([stays, nothing], -1)


def continuation_ratio(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """Returns the negative log-likelihood of ordered classes, `(batch,)`; see `Ordinal`.

    Args:
        outputs: `(batch, classes - 1)`.
        targets: Probabilities, `(batch, classes)`.
    """
    return -(targets * continuation_log_probabilities(outputs)).sum(-1)


LOSSES: dict[tuple[str, str], Loss] = {
    ("single_label", "cross_entropy"): optax.softmax_cross_entropy,
    ("single_label", "bce"): binary_cross_entropy,
    ("single_label", "focal"): focal,
    ("multi_label", "bce"): binary_cross_entropy,
    ("multi_label", "focal"): binary_focal,
    ("regression", "mse"): squared_error,
    ("regression", "huber"): huber,
    ("regression", "mae"): absolute_error,
    ("ordinal", "continuation_ratio"): continuation_ratio,
}
"""The losses by kind of task and name."""
