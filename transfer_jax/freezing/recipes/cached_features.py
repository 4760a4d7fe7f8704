"""Recipes that train heads on cached features of a frozen backbone."""

import dataclasses

from transfer_jax.freezing.recipes.chollet import head_only
from transfer_jax.freezing.schedule import Schedule


def head2toe(
    share: float = 0.05, strength: float = 1e-4, *, epochs: int = 60, learning_rate: float = 1e-2
) -> Schedule:
    """Trains a head on the outputs of all blocks with a group lasso, then one on the best features only.

    Set `taps=True` in the config; otherwise the features are those of the last block only. The outputs of
    blocks are pooled to their means; the paper also tries finer pooling.

    Source: Evci et al. 2022 (Head2Toe), arXiv:2201.03529. The loss has the term `strength * sum_i |w_i|` over
    the features i; the fraction `share` of them with the largest `|w_i|` is kept.

    Args:
        share: Fraction of the features that the second phase uses, in (0, 1].
        strength: Strength of the group lasso in the first phase.
        epochs: Epochs of each phase.
        learning_rate: The highest learning rate of each phase.
    """
    choosing = head_only(epochs, learning_rate, group_lasso=strength, cache="require")
    (chosen,) = head_only(epochs, learning_rate, keep=share, moments="reset", cache="require").phases
    return choosing + Schedule((dataclasses.replace(chosen, name="chosen features"),))


def frofa(brightness: float = 0.1, *, epochs: int = 60, learning_rate: float = 3e-3) -> Schedule:
    """Trains a head on cached features whose channels are shifted at random in every step.

    Source: Bär et al. 2024 (FroFA), arXiv:2403.10519.

    Args:
        brightness: Largest shift, as a fraction of a channel's range.
        epochs: Epochs of the head.
        learning_rate: The highest learning rate.
    """
    return head_only(epochs, learning_rate, feature_brightness=brightness, cache="require")
