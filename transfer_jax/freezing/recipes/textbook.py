"""The three ways of the textbook: Chollet, Deep Learning with Python."""

from typing import Any

from transfer_jax.freezing.phase import Phase
from transfer_jax.freezing.schedule import Schedule


def feature_extraction(
    *, epochs: int = 60, learning_rate: float = 3e-3, weight_decay: float = 0.0
) -> Schedule:
    """The convolutional base runs once over the data; a dense classifier trains on what it saved.

    Source: Chollet, Deep Learning with Python, "feature extraction without data augmentation".
    """
    return head_alone(epochs, learning_rate, weight_decay=weight_decay, cache="require")


def frozen_base(*, epochs: int = 5, learning_rate: float = 3e-3, weight_decay: float = 0.0) -> Schedule:
    """A new head on the frozen base, trained end to end with fresh augmentation of every image.

    Source: Chollet, Deep Learning with Python, "feature extraction together with data augmentation".
    """
    return head_alone(epochs, learning_rate, weight_decay=weight_decay, augment=True)


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
    """Fine-tuning in five steps: new head, base frozen, head trained, top unfrozen, both trained together.

    The head is trained first, so that the large errors of a random head do not wreck what the
    base has learnt.

    Source: Chollet, Deep Learning with Python, "fine-tuning a pretrained model".

    Args:
        unfreeze: Selector of the top blocks and the head, such as `top(2)`.
        head_epochs: Epochs of the first phase, on features that were extracted once.
        head_learning_rate: Rate of the first phase.
        epochs: Epochs of the second phase.
        learning_rate: Rate of the second phase; low, to change little of what was learnt.
        weight_decay: Decoupled decay of kernels, in both phases.
        views: Fixed augmentations of each image in the second phase; 0 augments afresh and caches nothing.
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


def head_alone(epochs: int, learning_rate: float, **others: Any) -> Schedule:
    """One phase that trains the head; `others` are its other fields."""
    phase = Phase(name="head", train="head", epochs=epochs, learning_rate=learning_rate, **others)
    return Schedule((phase,))
