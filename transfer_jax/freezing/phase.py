"""A phase: what trains for a while, how fast, and with what besides."""

import dataclasses
from typing import Literal, get_args

from transfer_jax.freezing.selectors import Selector, parse

Optimizer = Literal["adamw", "sgd", "rmsprop", "lion"]
Shape = Literal["constant", "linear", "cosine", "slanted", "freezeout"]
Clock = Literal["phase", "schedule"]
Statistic = Literal["none", "rgn", "snr"]
Moments = Literal["carry", "reset"]
Norm = Literal["frozen", "train"]
Flips = Literal["none", "horizontal", "both", "turns"]
Cache = Literal["auto", "off", "require"]

_CHOICES = {
    "optimizer": Optimizer,
    "shape": Shape,
    "clock": Clock,
    "statistic": Statistic,
    "moments": Moments,
    "norm": Norm,
    "feature_flips": Flips,
    "cache": Cache,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Phase:
    """A stretch of training with one selector, one optimizer and one learning-rate shape.

    The learning rate of a parameter is `learning_rate` x depth scale x time shape x statistic. What trains is
    static, and another structure compiles anew; rates are not, and changing them compiles nothing.

    Attributes:
        name: What logs and checkpoints call it.
        train: Selector of the parameters that train, as an expression such as `head` or `top(2)`.
        epochs: Passes over the training images.
        optimizer: `adamw`, `sgd` (with momentum), `rmsprop` or `lion`.
        learning_rate: The highest rate of the phase, at the head.
        shape: `constant`, `linear` or `cosine`: how the rate falls to zero; `slanted`: it climbs linearly
            during `warmup`, then falls to a 32nd; `freezeout`: each block's own cosine ends when it freezes.
        clock: What the shape runs over: this `phase`, or all phases of the `schedule` that say so.
        warmup: Share of that time in which the rate first climbs from zero, in [0, 1).
        first_freeze: With `freezeout`, the root of the share of time after which the lowest block freezes.
        layer_decay: Factor from each group to the one below it; 1.0 gives all the same rate.
        decay_start: Power of `layer_decay` at the group below the head: 1 as in BEiT, 2 as in ELECTRA.
        groups: First blocks of the groups that `layer_decay` steps over; none makes every block a group.
        statistic: Scales each tensor's rate once an epoch: `rgn` by its relative gradient norm, `snr` by
            whether the signal-to-noise ratio of its gradient is above 0.95; `none`.
        controller: Name of the rule that moves the cut, the end of the frozen prefix; empty for none.
        tests_per_epoch: How often an epoch the controller is asked.
        weight_decay: Decoupled decay of kernels; biases and normalizations are never decayed.
        l2_sp: Strength of the pull of the backbone towards its pretrained weights, in the gradient.
        l2_head: Strength of the pull of the head towards zero that goes with it.
        group_lasso: Strength of the penalty on the norms of the head's weights, a norm for each input.
        keep: Share of the head's inputs that it still uses from here on: those whose weights have the largest
            norms.
        momentum: First-moment decay of the optimizer; `rmsprop` has none.
        moments: Whether blocks that trained in the phase before `carry` their optimizer state, or `reset` it.
        clip_norm: Largest global norm of the gradient of the trainable part; None does not clip.
        lora: Selector of the kernels that get a trainable low-rank update beside what `train` picks.
        lora_rank: Rank of these updates.
        lora_alpha: They are scaled by `lora_alpha / lora_rank`.
        interpolate: How far the phase takes its parameters from where they began to where training ended;
            below 1 for weights between the two.
        norm: `frozen` keeps the pretrained batch statistics everywhere; `train` lets blocks that train
            normalize by their batch and update their statistics.
        augment: Whether the images are augmented.
        views: Number of fixed augmentations of each image that a cache holds; 0 augments afresh every time,
            which forbids a cache below the augmentation.
        feature_brightness: Largest random shift of each channel of cached features, as a share of its range.
        feature_flips: How cached feature maps are flipped at random: `none`; `horizontal`; `both`, vertically
            too; `turns`, turned by quarters too.
        cache: `auto` trains on cached features where the frozen part is a prefix, the augmentation allows it,
            they fit `feature_gigabytes`, and `views` are no more work than the epochs; `require` makes it an
            error if they cannot; `off` never.
    """

    name: str
    train: str
    epochs: int
    optimizer: Optimizer = "adamw"
    learning_rate: float
    shape: Shape = "cosine"
    clock: Clock = "phase"
    warmup: float = 0.0
    first_freeze: float = 0.8
    layer_decay: float = 1.0
    decay_start: int = 1
    groups: tuple[str, ...] = ()
    statistic: Statistic = "none"
    controller: str = ""
    tests_per_epoch: int = 1
    weight_decay: float = 0.0
    l2_sp: float = 0.0
    l2_head: float = 0.0
    group_lasso: float = 0.0
    keep: float = 1.0
    momentum: float = 0.9
    moments: Moments = "carry"
    clip_norm: float | None = None
    lora: str = ""
    lora_rank: int = 4
    lora_alpha: float = 8.0
    interpolate: float = 1.0
    norm: Norm = "frozen"
    augment: bool = False
    views: int = 0
    feature_brightness: float = 0.0
    feature_flips: Flips = "none"
    cache: Cache = "auto"

    def __post_init__(self) -> None:
        object.__setattr__(self, "train", str(parse(self.train)))
        object.__setattr__(self, "lora", str(parse(self.lora)) if self.lora else "")
        object.__setattr__(self, "groups", tuple(self.groups))
        for field, choices in _CHOICES.items():
            if getattr(self, field) not in get_args(choices):
                raise ValueError(
                    self._says(f"{field} must be one of {get_args(choices)}, got {getattr(self, field)!r}")
                )
        for field, good, wanted in (
            ("epochs", self.epochs >= 1, "at least 1"),
            ("learning_rate", self.learning_rate > 0, "above 0"),
            ("warmup", 0 <= self.warmup < 1, "in [0, 1)"),
            ("warmup", self.shape != "slanted" or self.warmup > 0, "above 0 for the slanted triangle"),
            ("first_freeze", 0 < self.first_freeze <= 1, "in (0, 1]"),
            ("layer_decay", 0 < self.layer_decay <= 1, "in (0, 1]"),
            ("decay_start", self.decay_start >= 0, "at least 0"),
            ("tests_per_epoch", self.tests_per_epoch >= 1, "at least 1"),
            ("weight_decay", self.weight_decay >= 0, "at least 0"),
            ("l2_sp", self.l2_sp >= 0, "at least 0"),
            ("l2_head", self.l2_head >= 0, "at least 0"),
            ("group_lasso", self.group_lasso >= 0, "at least 0"),
            ("keep", 0 < self.keep <= 1, "in (0, 1]"),
            ("momentum", 0 <= self.momentum < 1, "in [0, 1)"),
            ("clip_norm", self.clip_norm is None or self.clip_norm > 0, "above 0"),
            ("lora_rank", self.lora_rank >= 1, "at least 1"),
            ("lora_alpha", self.lora_alpha > 0, "above 0"),
            ("interpolate", 0 < self.interpolate <= 1, "in (0, 1]"),
            ("views", self.views >= 0, "at least 0"),
            ("feature_brightness", self.feature_brightness >= 0, "at least 0"),
        ):
            if not good:
                raise ValueError(self._says(f"{field} must be {wanted}, got {getattr(self, field)}"))
        if self.views and not self.augment:
            raise ValueError(self._says(f"views={self.views} are augmentations, but augment is off"))
        if self.controller and self.lora:
            raise ValueError(self._says("a controller cannot move the cut below low-rank updates"))
        if self.feature_brightness and self.cache == "off":
            raise ValueError(self._says("feature_brightness shifts cached features, but cache is off"))
        if self.feature_flips != "none" and self.cache == "off":
            raise ValueError(self._says("feature_flips flips cached features, but cache is off"))

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
