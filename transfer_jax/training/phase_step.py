"""The training step of a phase of `fit`: its loss, with the augmentation and regularizers of the phase."""

import dataclasses
import functools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from transfer_jax.distributed.sharding import ONE_DEVICE, Strategy
from transfer_jax.freezing.learning_rates import Rates
from transfer_jax.freezing.phase import Flips
from transfer_jax.models.flat_arrays import Arrays
from transfer_jax.tasks import Task
from transfer_jax.tasks.top_predictions import top_of_logits
from transfer_jax.training.batch_augmentation import brighten, flip, mix
from transfer_jax.training.forward import Batch, Forward
from transfer_jax.training.regularizers import add_group_lasso, add_l2_sp, freeze_unused_inputs
from transfer_jax.training.state import TrainState
from transfer_jax.training.step import Gradients, TrainStep, make_gradients, make_step

_NONE: Mapping[str, jax.Array] = {}
EvalStep = Callable[[Arrays, Batch], jax.Array]


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepOptions:
    """The options of a training step; see `TrainConfig` and `Phase` for those of the same name.

    Attributes:
        task: The task.
        class_weights: Weight of each class in the loss, `(classes,)`; None for no weights.
        loss: The loss of each image, of outputs and targets.
        exchanged: The precision in which gradients are exchanged between devices.
    """

    task: Task
    class_weights: np.ndarray | None = None
    loss: Callable[[jax.Array, jax.Array], jax.Array] = optax.softmax_cross_entropy
    label_smoothing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    accumulate: int = 1
    ema_decay: float = 0.0
    l2_sp: float = 0.0
    l2_head: float = 0.0
    feature_brightness: float = 0.0
    feature_flips: Flips = "none"
    group_lasso: float = 0.0
    keep: float = 1.0
    exchanged: jax.typing.DTypeLike = jnp.float32


def make_phase_gradients(forward: Forward, options: StepOptions) -> Gradients:
    """Returns the gradients of a phase's loss; see `make_gradients`.

    The loss is not differentiated with respect to `frozen`, so that the backward pass stops at the boundary.

    Args:
        forward: The forward pass.
        options: The options of the step.
    """
    weights = None if options.class_weights is None else jnp.asarray(options.class_weights)

    def loss(trainable: Arrays, stats: Arrays, frozen: Arrays, batch: Batch, key: jax.Array):
        mix_key, dropout_key = jax.random.split(key)
        x = forward.inputs(batch)
        targets = options.task.targets(batch["label"], options.label_smoothing)
        if options.mixup or options.cutmix:
            x, targets = mix(mix_key, x, targets, mixup=options.mixup, cutmix=options.cutmix)
        if options.feature_brightness and forward.start is not None:
            x = brighten(mix_key, x, options.feature_brightness)
        if options.feature_flips != "none" and forward.start is not None:
            x = flip(jax.random.fold_in(mix_key, 1), x, options.feature_flips)
        logits, after = forward({**frozen, **stats, **trainable}, x, nnx.Rngs(dropout_key))
        stats = {path: after[path].astype(jnp.float32) for path in stats}
        losses = options.loss(logits, targets)
        if weights is not None:
            losses *= targets @ weights
        losses *= batch.get("weight", 1.0)
        return losses.mean(), (stats, options.task.step_scores(logits, batch["label"]))

    return make_gradients(loss)


def make_phase_step(
    forward: Forward,
    optimizer: optax.GradientTransformation,
    options: StepOptions,
    strategy: Strategy = ONE_DEVICE,
) -> TrainStep:
    """Returns the pure function `(state, frozen, batch, rates, anchor) -> (state, metrics)`.

    `frozen` are all arrays of the model that are not in the state, `rates` the learning rates by block or
    path, and `anchor` the pretrained backbone for L2-SP. The metrics are `loss` (without the L2-SP term),
    `Task.step_scores` (against the unmixed labels) and `grad_norm` of the trainable part.

    Args:
        forward: The forward pass.
        optimizer: The optimizer of the trainable parameters, whose `update` takes `rates`.
        options: The options of the step.
        strategy: The devices; with several, gradients are averaged over them.
    """
    step = make_step(
        make_phase_gradients(forward, options),
        optimizer,
        accumulate=options.accumulate,
        ema_decay=options.ema_decay,
        average=functools.partial(strategy.average, dtype=forward.dtype, exchanged=options.exchanged),
    )

    def train_step(
        state: TrainState, frozen: Arrays, batch: Batch, rates: Rates, anchor: Mapping[str, jax.Array] = _NONE
    ):
        def regularize(grads: Arrays) -> Arrays:
            if options.l2_sp or options.l2_head:
                pull = {"backbone": options.l2_sp, "head": options.l2_head}
                grads = add_l2_sp(grads, state.trainable, anchor, **pull)
            if options.group_lasso:
                grads = add_group_lasso(grads, state.trainable, options.group_lasso)
            return freeze_unused_inputs(grads, state.trainable) if options.keep < 1 else grads

        return step(state, frozen, dict(batch), regularize, rates=rates)

    return train_step


def make_eval_step(forward: Forward) -> EvalStep:
    """Returns the pure function `(arrays, batch) -> logits`; `forward` is in inference mode."""

    def eval_step(arrays: Arrays, batch: Batch) -> jax.Array:
        return forward(arrays, forward.inputs(batch))[0]

    return eval_step


def make_top_step(forward: Forward) -> Callable[[Arrays, Batch], dict[str, jax.Array]]:
    """Returns the pure function `(arrays, batch) -> fields of TopPredictions`, of a batch with `label`."""

    def top_step(arrays: Arrays, batch: Batch) -> dict[str, jax.Array]:
        return top_of_logits(forward(arrays, forward.inputs(batch))[0], batch["label"])

    return top_step
