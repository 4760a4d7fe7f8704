"""Recipes of the textbook: Chollet, Deep Learning with Python."""

from typing import Any

from transfer_jax.freezing.phase import Phase
from transfer_jax.freezing.schedule import Schedule


def feature_extraction(
    *, epochs: int = 60, learning_rate: float = 3e-3, weight_decay: float = 0.0
) -> Schedule:
    """Runs the frozen base once over the images and trains a new head on the cached features.

    Source: Chollet, Deep Learning with Python, "feature extraction without data augmentation".

    Args:
        epochs: Epochs of the head.
        learning_rate: The highest learning rate.
        weight_decay: Decoupled weight decay of the head's kernel.
    """
    return head_only(epochs, learning_rate, weight_decay=weight_decay, cache="require")


def frozen_base(*, epochs: int = 5, learning_rate: float = 3e-3, weight_decay: float = 0.0) -> Schedule:
    """Trains a new head on the frozen base, with a new random augmentation of each image in each epoch.

    The base runs in every step, forward only.

    Source: Chollet, Deep Learning with Python, "feature extraction together with data augmentation".

    Args:
        epochs: Epochs of the head.
        learning_rate: The highest learning rate.
        weight_decay: Decoupled weight decay of the head's kernel.
    """
    return head_only(epochs, learning_rate, weight_decay=weight_decay, augment=True)


def five_steps(
    unfreeze: str,
    *,
    head_epochs: int = 60,
    head_learning_rate: float = 3e-3,
    epochs: int = 10,
    learning_rate: float = 1e-4,
    weight_decay: float = 0.0,
    views: int = 8,
) -> Schedule:
    """Trains a new head on the frozen base, then unfreezes the top and trains it together with the head.

    The five steps of the textbook: add a new head, freeze the base, train the head, unfreeze the top, train
    both. The head is trained first because the large gradients of a random head would destroy pretrained
    features.

    Source: Chollet, Deep Learning with Python, "fine-tuning a pretrained model".

    Example:
        >>> print(five_steps("top(2)"))
        head: head x 60 -> top: top(2) x 10

    Args:
        unfreeze: Selector of the top blocks and the head, such as `top(2)`.
        head_epochs: Epochs of the first phase, on cached features.
        head_learning_rate: The highest learning rate of the first phase.
        epochs: Epochs of the second phase.
        learning_rate: The highest learning rate of the second phase; a low rate keeps pretrained features.
        weight_decay: Decoupled weight decay of kernels, in both phases.
        views: Number of fixed augmented views of each image in the second phase; 0 draws a new augmentation
            each time and caches nothing.
    """
    head = feature_extraction(epochs=head_epochs, learning_rate=head_learning_rate, weight_decay=weight_decay)
    top = Phase(
        name="top",
        train=unfreeze,
        epochs=epochs,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        warmup=0.1,
        augment=True,
        views=views,
    )
    return head + Schedule((top,))


def head_only(epochs: int, learning_rate: float, **fields: Any) -> Schedule:
    """Returns one phase that trains the head.

    Args:
        epochs: Epochs of the phase.
        learning_rate: The highest learning rate.
        **fields: Other fields of the `Phase`.
    """
    phase = Phase(name="head", train="head", epochs=epochs, learning_rate=learning_rate, **fields)
    return Schedule((phase,))
