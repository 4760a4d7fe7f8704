"""The fields of a config about the schedule, the batch and the loss."""

import dataclasses
from typing import Literal

from transfer_jax.config.checks import check_choices, check_ranges
from transfer_jax.config.loss_field import LOSS, Loss
from transfer_jax.fields import as_tuple, convert_fields
from transfer_jax.freezing.phase import Phase
from transfer_jax.freezing.recipes import five_steps
from transfer_jax.freezing.schedule import Schedule

ClassWeights = Literal["none", "balanced"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizationConfig:
    """The schedule of freezing and learning rates, the batch, the loss and the seed.

    Attributes:
        schedule: The phases: which parameters train in each, for how long, and at which learning rates.
        batch_size: Number of images in a training step.
        accumulate: Number of microbatches that a batch is split into; only one is in memory at a time.
        loss: `auto`, the first loss of the task; `cross_entropy`, `bce` or `focal` for single labels, `bce`
            or `focal` for several labels, `mse`, `huber` or `mae` for regression, `continuation_ratio` for
            ordinal classes; a loss of Optax with its settings, as
            `optax.losses.poly_loss_cross_entropy(epsilon=2.0)`; a function of the outputs of the head and
            targets, both `(batch, columns)`, that returns the loss of each image, `(batch,)`; or its name, as
            `package.module:name`. The targets are probabilities, those of label smoothing and mixup, or
            standardized numbers.
        label_smoothing: Probability mass of the target that is spread evenly over the classes.
        class_weights: `balanced` weights the loss of each class by the inverse of its frequency.
        ema_decay: Decay of an exponential moving average of the weights, which validation and the trained
            model then use; 0 turns it off.
        seed: Seed of the split, the head, the order of the images, the augmentation and dropout.
    """

    schedule: Schedule = dataclasses.field(default_factory=lambda: five_steps("top(2)"))
    batch_size: int = 32
    accumulate: int = 1
    loss: Loss = "auto"
    label_smoothing: float = 0.0
    class_weights: ClassWeights = "none"
    ema_decay: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "loss", LOSS.read(self.loss))
        convert_fields(self, OptimizationConfig)
        if isinstance(self.schedule, Phase) or (
            isinstance(self.schedule, list | tuple) and all(isinstance(each, Phase) for each in self.schedule)
        ):
            object.__setattr__(self, "schedule", Schedule(as_tuple(self.schedule)))
        if not isinstance(self.schedule, Schedule):
            raise ValueError(
                f"schedule must be a Schedule, as `five_steps('top(2)')` returns, or a list of phases, "
                f"got {self.schedule!r}"
            )
        check_choices(self, class_weights=ClassWeights)
        check_ranges(
            self,
            batch_size="at least 1",
            accumulate="at least 1",
            label_smoothing="in [0, 1)",
            ema_decay="in [0, 1)",
            seed="at least 0",
        )
        if self.batch_size % self.accumulate:
            raise ValueError(f"batch_size {self.batch_size} is not divisible by accumulate {self.accumulate}")
