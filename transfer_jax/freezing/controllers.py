"""Controllers: functions that set the frozen depth during a phase.

A controller takes the measurements so far and returns the next frozen depth, the number of the backbone's
blocks that are frozen, counted from the input. It is registered by name, so that a schedule can be stored:

    @transfer_jax.controller
    def halfway(history):
        return len(history[-1].blocks) // 2 if history[-1].epoch >= 3 else 0

    Phase(name="all", train="all_()", epochs=10, learning_rate=1e-4, controller="halfway")

A controller has no state of its own. The checkpoint stores the measurements, so that a resumed run continues
with the same decisions.
"""

import dataclasses
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
    """The measurements for one call of a controller.

    Attributes:
        epoch: Completed epochs of the phase, with fractions.
        frozen_depth: Number of blocks that are frozen now.
        blocks: The backbone's blocks with parameters, input side first.
        learning_rate: The current learning rate of the head.
        grad_norm: Norm of the gradient of each trainable block, by block.
        plasticity: Distance of each trainable block's activations from the pretrained ones, in [0, 1], by
            block; empty if the controller was registered without `plasticity=True`.
    """

    epoch: float
    frozen_depth: int
    blocks: tuple[str, ...]
    learning_rate: float
    grad_norm: Mapping[str, float]
    plasticity: Mapping[str, float]

    @property
    def active(self) -> tuple[str, ...]:
        """The blocks above the frozen prefix, input side first."""
        return self.blocks[self.frozen_depth :]


Controller = Callable[[Sequence[Measured]], int]
"""Function from the measurements so far, newest last, to the next frozen depth."""

_CONTROLLERS: dict[str, tuple[Controller, bool]] = {}


def controller(function: Controller | None = None, *, plasticity: bool = False) -> Any:
    """Registers a controller under the name of its function. Used as a decorator.

    A controller that is registered later under the same name replaces the earlier one. A phase uses it with
    `Phase(controller=name)`.

    Example:
        >>> @controller
        ... def halfway(history):
        ...     return len(history[-1].blocks) // 2 if history[-1].epoch >= 3 else 0

    Args:
        function: The controller: it takes the list of `Measured`, newest last, and returns the next frozen
            depth, an integer from 0 to the number of blocks.
        plasticity: True measures `Measured.plasticity` for this controller.

    Returns:
        The function itself, or a decorator if `function` is None.
    """
    if function is None:
        return lambda function: controller(function, plasticity=plasticity)
    _CONTROLLERS[function.__name__] = function, plasticity  # pyright: ignore[reportFunctionMemberAccess]
    return function


def find_controller(name: str) -> Controller:
    """Returns the controller of a name.

    Raises:
        ValueError: If the name is unknown; the message lists the choices.
    """
    if name not in _CONTROLLERS:
        raise ValueError(f"unknown controller {name!r}; known controllers: {', '.join(sorted(_CONTROLLERS))}")
    return _CONTROLLERS[name][0]


def needs_plasticity(name: str) -> bool:
    """Returns True if the controller of a name uses the plasticity."""
    return _CONTROLLERS[name][1]


def next_frozen_depth(name: str, history: Sequence[Measured]) -> int:
    """Calls a controller.

    Args:
        name: Name of the controller.
        history: The measurements of the phase so far, newest last, at least one.

    Returns:
        The next frozen depth, in blocks.

    Raises:
        ValueError: If the controller is unknown, or returns no integer from 0 to the number of blocks.
    """
    frozen_depth, count = find_controller(name)(history), len(history[-1].blocks)
    if (
        isinstance(frozen_depth, bool)
        or not isinstance(frozen_depth, int | np.integer)
        or not 0 <= frozen_depth <= count
    ):
        raise ValueError(
            f"the controller {name!r} returned the frozen depth {frozen_depth!r}; "
            f"it must be an integer in 0..{count}"
        )
    return int(frozen_depth)


@controller
def autofreeze(history: Sequence[Measured]) -> int:
    """Freezes all blocks below the first one whose gradient norm changes at least as much as the median.

    The change of a block between two measurements is |G_before - G| / G_before, with the norm G of its
    gradient; the median is that of all active blocks.

    Source: Liu et al. 2021 (AutoFreeze), arXiv:2102.01386.
    """
    if len(history) < 2 or history[-2].frozen_depth != history[-1].frozen_depth:
        return history[-1].frozen_depth
    before, now = history[-2], history[-1]
    changes = [
        abs(before.grad_norm[block] - now.grad_norm[block]) / max(before.grad_norm[block], 1e-12)
        for block in now.active
    ]
    if not changes:
        return now.frozen_depth
    threshold = statistics.median(changes)
    return now.frozen_depth + next(index for index, change in enumerate(changes) if change >= threshold)


@controller
def pipetransformer(history: Sequence[Measured]) -> int:
    """Freezes a third of the active blocks, but only blocks below the one with the smallest gradient.

    Source: He et al. 2021 (PipeTransformer), arXiv:2102.03161, equation 1 with alpha = 1/3.
    """
    now = history[-1]
    if not now.active:
        return now.frozen_depth
    smallest = min(now.active, key=lambda block: now.grad_norm[block])
    return min(now.frozen_depth + len(now.active) // 3, now.blocks.index(smallest))


_WINDOW = 3
_FLAT = 0.2
_DROP = 10


@controller(plasticity=True)
def egeria(history: Sequence[Measured]) -> int:
    """Freezes the lowest active block when its plasticity stops changing; unfreezes all after a rate drop.

    The plasticity has stopped changing if its slope over the last 3 measurements is below a fifth of the
    steepest slope so far. The learning rate has dropped if it is at most a tenth of its value when the first
    block was frozen.

    Source: Wang et al. 2022 (Egeria), arXiv:2201.06227. Egeria compares with a snapshot of the model in
    training; this controller compares with the pretrained model.
    """
    now = history[-1]
    frozen_at = next((each for each in history if each.frozen_depth), None)
    if frozen_at and now.frozen_depth and now.learning_rate * _DROP <= frozen_at.learning_rate:
        return 0
    if not now.active:
        return now.frozen_depth
    front = now.active[0]
    values = [each.plasticity[front] for each in history if front in each.plasticity]
    slopes = [
        abs(values[end - 1] - values[end - _WINDOW]) / (_WINDOW - 1)
        for end in range(_WINDOW, len(values) + 1)
    ]
    return now.frozen_depth + bool(len(slopes) > 1 and slopes[-1] < _FLAT * max(slopes))
