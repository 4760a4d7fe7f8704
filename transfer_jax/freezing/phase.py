"""A phase: a stretch of training, with its trainable parameters, optimizer and learning rate."""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from transfer_jax.fields import convert_fields
from transfer_jax.freezing.adapter_text import AdapterText, join_adapters, parse_adapters
from transfer_jax.freezing.phase_optimizer import OPTIMIZER, OPTIMIZERS, has_own_rate
from transfer_jax.freezing.python_object import PythonObject
from transfer_jax.freezing.selectors import Selector, parse
from transfer_jax.freezing.time_factor import SHAPE, SHAPES

if TYPE_CHECKING:
    import optax

    Optimizer = str | PythonObject | optax.GradientTransformation | Callable[[float], Any]
    LearningRateSchedule = str | PythonObject | Callable[[Any], Any]
else:  # The command line reads names only.
    Optimizer = LearningRateSchedule = str | PythonObject
ScheduleSpan = Literal["phase", "schedule"]
Statistic = Literal["none", "rgn", "snr"]
Moments = Literal["carry", "reset"]
Norm = Literal["frozen", "train"]
Flips = Literal["none", "horizontal", "both", "turns"]
Cache = Literal["auto", "off", "require"]
KeepEpoch = Literal["auto", "best", "last"]

_CHOICES = {
    "clock": ScheduleSpan,
    "statistic": Statistic,
    "moments": Moments,
    "norm": Norm,
    "feature_flips": Flips,
    "cache": Cache,
    "keep_epoch": KeepEpoch,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Phase:
    """A stretch of training with one selector, one optimizer and one learning-rate schedule.

    The learning rate of a parameter at a step is the product of `learning_rate`, a factor for its depth
    (`layer_decay`), a factor for the time (`shape`) and a factor from its gradients (`statistic`). The
    trainable set is static: a phase with another set compiles another training step. Learning rates are
    arguments of the step, so that changing them compiles nothing.

    Example:
        >>> head = Phase(name="head", train="head", epochs=10, learning_rate=3e-3, cache="require")
        >>> top = Phase(name="top", train="top(2)", epochs=5, learning_rate=1e-4, augment=True, views=4)

    Attributes:
        name: Name of the phase in logs and checkpoints, unique in a schedule.
        train: Selector of the trainable parameters, as an expression such as `head` or `top(2)`.
        epochs: Number of passes over the training images.
        optimizer: `adamw`, `sgd` (with momentum), `rmsprop` or `lion`; an optimizer of Optax with its
            settings, as `optax.lamb(b1=0.9)`; an `optax.GradientTransformation`; a function from the
            learning rate to one; or the name of such an object or function, as `package.module:name`.
        learning_rate: The highest learning rate of the head in the phase. By default 1 if `optimizer` is an
            `optax.GradientTransformation`, which has its own, or if `shape` is a function of the step.
        shape: The learning-rate schedule: `constant`; `linear` or `cosine` decay to zero; `slanted`, a linear
            increase during `warmup`, then a linear decay to 1/32; `freezeout`, a cosine for each block that
            reaches zero when the block freezes; a schedule of Optax with its settings; a function from the
            step in the span to a factor of `learning_rate`; or its name, as `package.module:name`. By
            default `cosine`, and `constant` if `optimizer` is an `optax.GradientTransformation`.
        clock: The span of the learning-rate schedule: this `phase`, or all phases of the `schedule` that
            have `clock="schedule"`.
        warmup: Fraction of that span, in [0, 1), in which the learning rate first increases from zero.
        first_freeze: Cube root of the fraction of the span after which the lowest block freezes; used by
            `freezeout` only.
        layer_decay: Factor of the learning rate from each group of blocks to the one below it; 1.0 gives all
            groups the same rate.
        decay_start: Power of `layer_decay` at the group below the head: 1 as in BEiT, 2 as in ELECTRA.
        groups: Names of the first block of each group for `layer_decay`, input side first; empty makes each
            block a group.
        statistic: Factor of each tensor's learning rate that is measured once an epoch: `rgn`, the relative
            norm of its gradient; `snr`, 1 if the signal-to-noise ratio of its gradient is at least 0.95,
            else 0; `none`.
        controller: Name of the controller that sets the frozen depth during the phase; empty for none.
        tests_per_epoch: Number of times an epoch that the controller is called.
        weight_decay: Decoupled weight decay of kernels; biases and normalization parameters do not decay.
            Other optimizers than the four above have their own.
        l2_sp: Strength of the L2 penalty on the distance of the backbone from its pretrained weights.
        l2_head: Strength of the L2 penalty on the head's weights that belongs to `l2_sp`.
        group_lasso: Strength of the penalty on the norms of the head's weights, one norm for each input.
        keep: Fraction of the head's inputs that stay in use, in (0, 1]: those with the largest weight norms.
        momentum: Decay rate of the first moment of `adamw`, `sgd` and `lion`.
        moments: `carry` keeps the optimizer state of blocks that also trained in the previous phase; `reset`
            initializes it.
        clip_norm: Largest global norm of the gradient of the trainable parameters; None does not clip.
        adapter: Adapters that train in addition to `train`, such as `lora(match('qkv'), rank=8)`; several are
            joined by `+`. See `parse_adapters`. They stay in the network in later phases. Empty for none.
        interpolate: Weight of the trained parameters in the average with those at the start of the phase, in
            (0, 1]; 1 takes the trained ones.
        norm: `frozen` keeps the pretrained batch statistics in all blocks; with `train`, trainable blocks
            normalize by their batch and update their statistics.
        augment: True augments the training images.
        views: Number of fixed augmented views of each image that are cached; 0 draws a new augmentation each
            time, which rules out cached features.
        feature_brightness: Largest random shift of each channel of cached features, as a fraction of the
            channel's range.
        feature_flips: Random flips of cached feature maps: `none`; `horizontal`; `both`, also vertical;
            `turns`, also rotations by multiples of 90 degrees.
        cache: `auto` trains on cached features if the frozen part is a prefix, the augmentation allows it,
            they fit into `feature_gigabytes` and computing the `views` costs no more than the epochs;
            `require` raises an error where `auto` would not cache; `off` never caches.
        keep_epoch: The epoch whose weights the phase keeps: `best` or `last`; `auto` is as the config's
            `keep_epoch` says.
        patience: Number of epochs without a better one after which the phase ends early; None is as the
            config's `patience` says, and 0 trains all epochs.
        lora: Former way to write `adapter=lora(…)`: the selector of the kernels.
        lora_rank: The rank that belongs to `lora`.
        lora_alpha: The alpha that belongs to `lora`.

    Raises:
        SelectorError: If `train` is no selector, or `adapter` no text of adapters.
        ValueError: If a value is out of range, unknown or contradicts another one; the message names it.
    """

    name: str
    train: str
    epochs: int
    optimizer: Optimizer = "adamw"
    learning_rate: float = cast(float, None)
    shape: LearningRateSchedule = ""
    clock: ScheduleSpan = "phase"
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
    adapter: str = ""
    interpolate: float = 1.0
    norm: Norm = "frozen"
    augment: bool = False
    views: int = 0
    feature_brightness: float = 0.0
    feature_flips: Flips = "none"
    cache: Cache = "auto"
    keep_epoch: KeepEpoch = "auto"
    patience: int | None = None
    lora: dataclasses.InitVar[str] = ""
    lora_rank: dataclasses.InitVar[int] = 4
    lora_alpha: dataclasses.InitVar[float] = 8.0

    def __post_init__(self, lora: str, lora_rank: int, lora_alpha: float) -> None:
        if lora and self.adapter:
            raise ValueError(self._message("lora and adapter cannot be combined: add the updates to adapter"))
        former = f"lora({lora}, rank={lora_rank}, alpha={lora_alpha})" if lora else ""
        object.__setattr__(self, "adapter", join_adapters(parse_adapters(former or self.adapter)))
        try:
            self._read_objects()
            convert_fields(self, Phase)
        except ValueError as error:
            raise ValueError(self._message(str(error))) from None
        object.__setattr__(self, "train", str(parse(self.train)))
        for field, choices in _CHOICES.items():
            if getattr(self, field) not in get_args(choices):
                raise ValueError(
                    self._message(f"{field} must be one of {get_args(choices)}, got {getattr(self, field)!r}")
                )
        for field, valid, allowed in (
            ("epochs", self.epochs >= 1, "at least 1"),
            ("learning_rate", self.learning_rate > 0, "above 0"),
            ("warmup", 0 <= self.warmup < 1, "in [0, 1)"),
            ("warmup", self.shape != "slanted" or self.warmup > 0, "above 0 if shape is slanted"),
            ("warmup", self.shape in SHAPES or self.warmup == 0, "0 if shape is a function of the step"),
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
            ("interpolate", 0 < self.interpolate <= 1, "in (0, 1]"),
            ("views", self.views >= 0, "at least 0"),
            ("patience", self.patience is None or self.patience >= 0, "at least 0"),
            ("feature_brightness", self.feature_brightness >= 0, "at least 0"),
        ):
            if not valid:
                raise ValueError(self._message(f"{field} must be {allowed}, got {getattr(self, field)}"))
        if self.weight_decay and self.optimizer not in OPTIMIZERS:
            problem = f"weight_decay={self.weight_decay} needs one of the optimizers {', '.join(OPTIMIZERS)}"
            raise ValueError(
                self._message(
                    f"{problem}; others have their own, as 'optax.lamb(weight_decay=0.01)' or "
                    "optax.chain(…, optax.add_decayed_weights(0.01), …)"
                )
            )
        if self.views and not self.augment:
            raise ValueError(self._message(f"views={self.views} needs augment=True"))
        if self.controller and self.adapter:
            raise ValueError(
                self._message("a controller and an adapter cannot be combined: set only one of them")
            )
        if self.feature_brightness and self.cache == "off":
            raise ValueError(self._message("feature_brightness needs cached features, but cache is off"))
        if self.feature_flips != "none" and self.cache == "off":
            raise ValueError(self._message("feature_flips needs cached features, but cache is off"))

    def _read_objects(self) -> None:
        """Sets the optimizer, the learning-rate schedule, and the defaults that depend on them."""
        optimizer, shape = OPTIMIZER.read(self.optimizer), self.shape
        own_rate = (self.learning_rate is None or not shape) and has_own_rate(optimizer)
        shape = SHAPE.read(shape or ("constant" if own_rate else "cosine"))
        if self.learning_rate is None:
            if not own_rate and shape in SHAPES:
                raise ValueError(
                    "learning_rate is missing; only an optax.GradientTransformation, and a shape that is a "
                    "function of the step, have their own"
                )
            object.__setattr__(self, "learning_rate", 1.0)
        object.__setattr__(self, "optimizer", optimizer)
        object.__setattr__(self, "shape", shape)

    @property
    def objects(self) -> tuple[PythonObject, ...]:
        """The optimizer and the learning-rate schedule, as far as they are objects of Python."""
        return tuple(each for each in (self.optimizer, self.shape) if isinstance(each, PythonObject))

    @property
    def selector(self) -> Selector:
        """The selector of the trainable parameters, parsed from `train`."""
        return parse(self.train)

    @property
    def adapters(self) -> tuple[AdapterText, ...]:
        """The adapters that train in the phase."""
        return parse_adapters(self.adapter)

    @property
    def cacheable(self) -> bool:
        """True if features can be cached: no augmentation, or fixed views."""
        return not self.augment or self.views > 0

    def _message(self, problem: str) -> str:
        return f"phase {self.name!r}: {problem}"
