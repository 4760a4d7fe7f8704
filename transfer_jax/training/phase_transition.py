"""The transition from one phase to the next in a loop of your own."""

from typing import Any

import jax
import optax

from transfer_jax.freezing.trees import combine, partition
from transfer_jax.training.state import TrainState, carry


def next_phase(
    state: TrainState | None,
    frozen: Any,
    labels: Any,
    optimizer: optax.GradientTransformation,
    *,
    model_state: Any = None,
    moments: bool = True,
    ema: bool = False,
    seed: int | jax.Array | None = None,
) -> tuple[TrainState, Any]:
    """Returns the state before the first step of a phase, and its frozen parameters.

    The parameters of both parts are joined and divided again by the new labels. The state of the model
    continues. A block keeps its moments if all of its trainable parameters were trainable before; any other
    block starts with fresh moments. Blocks are the labels of a `multi_transform`; with any other optimizer,
    all parameters are one block. Learning rates and counters of learning-rate schedules start again.

    Example:
        >>> state, frozen = None, params
        >>> for selector in ("head", "top(1)", "all_()"):
        ...     found = labels(params, selector, blocks)
        ...     optimizer = multi_transform({name: optax.adam(1e-3) for name in names}, found)
        ...     state, frozen = next_phase(state, frozen, found, optimizer, model_state=model_state)
        ...     # Train.

    Args:
        state: The last state of the phase before; None before the first phase.
        frozen: The frozen parameters of the phase before; all parameters before the first phase.
        labels: The labels of all parameters in the new phase.
        optimizer: The optimizer of the new phase.
        model_state: State of the model before the first phase; later phases continue with that of `state`.
        moments: Keeps moments. False starts each phase with fresh ones.
        ema: Keeps moving averages of the parameters.
        seed: Seed of the random numbers of the phase. None is 0 in the first phase, and one more in each
            later one.
    """
    if state is None:
        trainable, frozen = partition(frozen, labels)
        return TrainState.create(trainable, optimizer, model_state, ema=ema, seed=seed or 0), frozen
    trainable, frozen = partition(combine(state.trainable, frozen), labels)
    fresh = TrainState.create(
        trainable, optimizer, state.model_state, ema=ema, seed=state.seed + 1 if seed is None else seed
    )
    return carry(state, fresh, moments=moments), frozen
