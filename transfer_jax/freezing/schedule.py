"""Phases and schedules: what trains when, and how fast."""

import dataclasses
import json
import math
from collections.abc import Sequence
from typing import Literal, get_args

from transfer_jax.freezing.selectors import Selector, parse

Optimizer = Literal["adamw", "sgd", "rmsprop", "lion"]
Shape = Literal["constant", "linear", "cosine"]
Norm = Literal["frozen", "train"]
Cache = Literal["auto", "off", "require"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Phase:
    """A stretch of training with one selector, one optimizer and one learning-rate shape.

    Attributes:
        name: What logs and checkpoints call it.
        train: Selector of the parameters that train, as an expression such as `head` or `top(2)`.
        epochs: Passes over the training images.
        optimizer: `adamw`, `sgd` (with momentum), `rmsprop` or `lion`.
        learning_rate: The highest rate of the phase, at the head.
        shape: `constant`, `linear` or `cosine`: how the rate falls to zero over the phase.
        warmup: Share of the phase in which the rate first climbs from zero, in [0, 1).
        layer_decay: Factor from each block to the one below it; 1.0 gives all blocks the same rate.
        weight_decay: Decoupled decay of kernels; biases and normalizations are never decayed.
        momentum: First-moment decay of the optimizer; `rmsprop` has none.
        clip_norm: Largest global norm of the gradient of the trainable part; None does not clip.
        norm: `frozen` keeps the pretrained batch statistics everywhere; `train` lets blocks that train
            normalize by their batch and update their statistics.
        augment: Whether the images are augmented.
        views: Number of fixed augmentations of each image that a cache holds; 0 augments afresh every time,
            which forbids a cache below the augmentation.
        cache: `auto` trains on cached features whenever the frozen part is a prefix and the augmentation
            allows it; `require` makes it an error otherwise; `off` never.
    """

    name: str
    train: str
    epochs: int
    optimizer: Optimizer = "adamw"
    learning_rate: float
    shape: Shape = "cosine"
    warmup: float = 0.0
    layer_decay: float = 1.0
    weight_decay: float = 0.0
    momentum: float = 0.9
    clip_norm: float | None = None
    norm: Norm = "frozen"
    augment: bool = False
    views: int = 0
    cache: Cache = "auto"

    def __post_init__(self) -> None:
        object.__setattr__(self, "train", str(parse(self.train)))
        for field, choices in (
            ("optimizer", get_args(Optimizer)),
            ("shape", get_args(Shape)),
            ("norm", get_args(Norm)),
            ("cache", get_args(Cache)),
        ):
            if getattr(self, field) not in choices:
                raise ValueError(
                    self._says(f"{field} must be one of {choices}, got {getattr(self, field)!r}")
                )
        for field, good, wanted in (
            ("epochs", self.epochs >= 1, "at least 1"),
            ("learning_rate", self.learning_rate > 0, "above 0"),
            ("warmup", 0 <= self.warmup < 1, "in [0, 1)"),
            ("layer_decay", 0 < self.layer_decay <= 1, "in (0, 1]"),
            ("weight_decay", self.weight_decay >= 0, "at least 0"),
            ("momentum", 0 <= self.momentum < 1, "in [0, 1)"),
            ("clip_norm", self.clip_norm is None or self.clip_norm > 0, "above 0"),
            ("views", self.views >= 0, "at least 0"),
        ):
            if not good:
                raise ValueError(self._says(f"{field} must be {wanted}, got {getattr(self, field)}"))
        if self.views and not self.augment:
            raise ValueError(self._says(f"views={self.views} are augmentations, but augment is off"))

    @property
    def selector(self) -> Selector:
        """Which parameters train."""
        return parse(self.train)

    @property
    def cacheable(self) -> bool:
        """Whether the augmentation, if any, is one that a cache can hold."""
        return not self.augment or self.views > 0

    def _says(self, problem: str) -> str:
        return f"phase {self.name!r}: {problem}"


@dataclasses.dataclass(frozen=True)
class Schedule:
    """An ordered list of phases."""

    phases: tuple[Phase, ...]

    def __post_init__(self) -> None:
        if not self.phases:
            raise ValueError("a schedule needs at least one phase")
        names = [phase.name for phase in self.phases]
        if len(set(names)) != len(names):
            raise ValueError(f"the phases of a schedule need different names, got {', '.join(names)}")

    def to_json(self) -> str:
        """The schedule as text that `from_json` reads back to an equal schedule."""
        return json.dumps([dataclasses.asdict(phase) for phase in self.phases])

    @classmethod
    def from_json(cls, text: str) -> "Schedule":
        """Reads what `to_json` wrote."""
        return cls(tuple(Phase(**fields) for fields in json.loads(text)))

    def __str__(self) -> str:
        return " -> ".join(f"{phase.name}: {phase.train} x {phase.epochs}" for phase in self.phases)


def rate_factor(phase: Phase, step: int, steps: int) -> float:
    """The time shape of the learning rate: a factor in [0, 1] at a step of a phase of `steps` steps."""
    warmup = phase.warmup * steps
    if step < warmup:
        return (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(steps - warmup, 1)
    match phase.shape:
        case "linear":
            return 1 - progress
        case "cosine":
            return 0.5 * (1 + math.cos(math.pi * progress))
    return 1.0


def depth_factors(phase: Phase, blocks: Sequence[str]) -> dict[str, float]:
    """The depth scale of the learning rate, `layer_decay ** (blocks between it and the head)`.

    Source: Clark et al. 2020 (ELECTRA), arXiv:2003.10555; Bao et al. 2021 (BEiT), arXiv:2106.08254.

    Args:
        phase: The phase.
        blocks: All blocks with parameters in order, the head last; its factor is 1.
    """
    return {name: phase.layer_decay**depth for depth, name in enumerate(reversed(blocks))}
