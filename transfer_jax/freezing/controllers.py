"""Rules that move the frozen depth, the end of the frozen prefix, while a phase trains.

A controller is a function from what was measured so far to the next frozen depth: how many of the
backbone's blocks, from the input on, are frozen. It is known by its name, so that a schedule stays a value that is stored:

    @transfer_jax.controller
    def halfway(history):
        return len(history[-1].blocks) // 2 if history[-1].epoch >= 3 else 0

    Phase(name="all", train="all_()", epochs=10, learning_rate=1e-4, controller="halfway")

It has no state of its own; all of the history is in the checkpoint.
"""

import dataclasses
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
    """What is known at one test of a controller.

    Attributes:
        epoch: Epochs of the phase that are over, with fractions.
        frozen_depth: How many blocks are frozen now.
        blocks: The backbone's blocks that have parameters, input side first.
        learning_rate: The head's rate now.
        grad_norm: Norm of the gradient of each block that trains.
        plasticity: How far the activations of each block that trains have moved from the pretrained ones, in
            [0, 1]; empty if the controller does not ask for it.
    """

    epoch: float
    frozen_depth: int
    blocks: tuple[str, ...]
    learning_rate: float
    grad_norm: Mapping[str, float]
    plasticity: Mapping[str, float]

    @property
    def active(self) -> tuple[str, ...]:
        """The blocks that are not cut off."""
        return self.blocks[self.frozen_depth :]


Controller = Callable[[Sequence[Measured]], int]
"""From the history, newest last, to the next frozen depth."""

_KNOWN: dict[str, tuple[Controller, bool]] = {}


def controller(function: Controller | None = None, *, plasticity: bool = False) -> Any:
    """Makes a controller known by the name of its function; a later one of that name takes its place.

    Args:
        function: The controller.
        plasticity: Whether it looks at the plasticity, which is measured only then.
    """
    if function is None:
        return lambda function: controller(function, plasticity=plasticity)
    _KNOWN[function.__name__] = function, plasticity  # pyright: ignore[reportFunctionMemberAccess]
    return function


def find_controller(name: str) -> Controller:
    """The controller of a name.

    Raises:
        ValueError: If there is none; names the choices.
    """
    if name not in _KNOWN:
        raise ValueError(f"no controller {name!r}; known are {', '.join(sorted(_KNOWN))}")
    return _KNOWN[name][0]


def needs_plasticity(name: str) -> bool:
    """Whether the controller of a name looks at the plasticity."""
    return _KNOWN[name][1]


def next_frozen_depth(name: str, history: Sequence[Measured]) -> int:
    """Asks a controller.

    Raises:
        ValueError: If its frozen depth is no number of blocks.
    """
    frozen_depth, count = find_controller(name)(history), len(history[-1].blocks)
    if (
        isinstance(frozen_depth, bool)
        or not isinstance(frozen_depth, int | np.integer)
        or not 0 <= frozen_depth <= count
    ):
        raise ValueError(
            f"the controller {name!r} returned the frozen depth {frozen_depth!r}; "
            f"it must be one of 0 … {count}"
        )
    return int(frozen_depth)


@controller
def autofreeze(history: Sequence[Measured]) -> int:
    """Freezes up to the first block whose gradient norm still changes as much as the median of the active.

    Source: Liu et al. 2021 (AutoFreeze), arXiv:2102.01386: the change is |G_before - G| / G_before.
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
    """Freezes a third of the active blocks, but none above the one whose gradient is smallest.

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
    """Freezes the lowest active block once its plasticity stops to change; unfreezes all at a rate drop.

    Stopped means that its slope over the last 3 tests is below a fifth of the steepest so far. The rate has
    dropped when it is a tenth of what it was when the first block froze.

    Source: Wang et al. 2022 (Egeria), arXiv:2201.06227. There the reference is a snapshot of the model in
    training; here it is the pretrained model, which is always at hand.
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
