"""The one step function: from a boundary to new parameters, differentiating the trainable part only."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from transfer_jax.distributed.sharding import ONE_DEVICE, Strategy
from transfer_jax.features import decode, in_slices
from transfer_jax.freezing.learning_rates import Rates
from transfer_jax.freezing.lora import LoraUpdates
from transfer_jax.freezing.phase import Flips
from transfer_jax.models import flat_arrays
from transfer_jax.models.flat_arrays import Arrays, merge, split
from transfer_jax.models.preprocessing import Preprocessing
from transfer_jax.nn.batch_shard import gather
from transfer_jax.training.feature_augmentation import brighten, flipped
from transfer_jax.training.loss import cross_entropy, mix, soft_targets
from transfer_jax.training.regularizers import lassoed, pulled, still
from transfer_jax.training.state import TrainState

Batch = Mapping[str, jax.Array]
Metrics = dict[str, jax.Array]
_NONE: Mapping[str, jax.Array] = {}
WISHES = ("stop", "terminate", "save")
"""Entries of a batch in which each process of several says what it wants, 1 or 0, in each of its rows. The
metrics have their means, so that all of them learn of a wish of any in the same step."""
INPUTS = ("image", "features", "scale")
"""Entries of a batch that a model is given; see `Forward.inputs`."""
TrainStep = Callable[..., tuple[TrainState, Metrics]]
Gradients = Callable[[Arrays, Arrays, Arrays, Batch, jax.Array], tuple[tuple[Arrays, Metrics], Arrays]]
EvalStep = Callable[[Arrays, Batch], jax.Array]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Forward:
    """How a batch becomes logits.

    Attributes:
        graphdef: Definition of the model, with the blocks that train in training mode.
        start: The boundary that the batch's `features` were taken at; None for `image`.
        prefix: End of the blocks that nothing is differentiated in and that are in inference mode, such as
            those below what trains, or all of them to evaluate; None if there are none.
        remat: Whether backward computes what is inside a block anew; see `Backbone`.
        preprocessing: How the weights want images.
        dtype: Precision of the computation.
        prefix_dtype: Precision of the blocks of the prefix.
        adapters: Low-rank updates whose factors are among the arrays.
    """

    graphdef: nnx.GraphDef
    start: str | None
    preprocessing: Preprocessing
    prefix: str | None = None
    remat: bool = False
    dtype: jax.typing.DTypeLike = jnp.float32
    prefix_dtype: jax.typing.DTypeLike = jnp.float32
    adapters: LoraUpdates = LoraUpdates()

    def inputs(self, batch: Batch) -> jax.Array:
        """The features of a batch, or its normalized images."""
        if self.start is None:
            return self.preprocessing.normalize(batch["image"])
        return decode(batch["features"], batch["scale"]) if "scale" in batch else batch["features"]

    def __call__(
        self, arrays: Arrays, x: jax.Array, rngs: nnx.Rngs | None = None
    ) -> tuple[jax.Array, Arrays]:
        """Logits `(batch, classes)` in float32, and the running statistics afterwards."""
        arrays, start = self.adapters.merged(gather(arrays)), self.start
        if self.prefix is not None:
            x, start = self._through_prefix(arrays, x), self.prefix
        model = merge(self.graphdef, flat_arrays.cast(arrays, self.dtype))
        model.backbone.remat = self.remat
        logits = model(x.astype(self.dtype), start=start, rngs=rngs)
        return logits.astype(jnp.float32), split(model)[2]

    def _through_prefix(self, arrays: Arrays, x: jax.Array) -> jax.Array:
        arrays = flat_arrays.cast(arrays, self.prefix_dtype)

        def frozen(x: jax.Array) -> jax.Array:
            return merge(self.graphdef, arrays).backbone(x, start=self.start, stop=self.prefix)

        return in_slices(frozen, x.astype(self.prefix_dtype))


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepOptions:
    """What else decides a training step; the names are those of `TrainConfig` and `Phase`."""

    class_weights: np.ndarray
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


def make_gradients(forward: Forward, options: StepOptions) -> Gradients:
    """The pure function `(trainable, stats, frozen, batch, key) -> ((gradients, metrics), stats)`.

    Nothing is differentiated with respect to `frozen`, so backward stops at the boundary by itself.
    """
    weights = jnp.asarray(options.class_weights)

    def loss(trainable: Arrays, stats: Arrays, frozen: Arrays, batch: Batch, key: jax.Array):
        mix_key, dropout_key = jax.random.split(key)
        x = forward.inputs(batch)
        targets = soft_targets(batch["label"], len(weights), options.label_smoothing)
        if options.mixup or options.cutmix:
            x, targets = mix(mix_key, x, targets, mixup=options.mixup, cutmix=options.cutmix)
        if options.feature_brightness and forward.start is not None:
            x = brighten(mix_key, x, options.feature_brightness)
        if options.feature_flips != "none" and forward.start is not None:
            x = flipped(jax.random.fold_in(mix_key, 1), x, options.feature_flips)
        logits, after = forward({**frozen, **stats, **trainable}, x, nnx.Rngs(dropout_key))
        correct = logits.argmax(-1) == batch["label"]
        stats = {path: after[path].astype(jnp.float32) for path in stats}
        losses = cross_entropy(logits, targets, weights) * batch.get("weight", 1.0)
        wishes = {name: batch[name].mean() for name in WISHES if name in batch}
        return losses.mean(), (stats, {"accuracy": correct.mean(), **wishes})

    def gradients(trainable: Arrays, stats: Arrays, frozen: Arrays, batch: Batch, key: jax.Array):
        (value, (stats, metrics)), grads = jax.value_and_grad(loss, has_aux=True)(
            trainable, stats, frozen, batch, key
        )
        return (grads, {"loss": value, **metrics}), stats

    return gradients


def make_train_step(
    forward: Forward,
    optimizer: optax.GradientTransformationExtraArgs,
    options: StepOptions,
    strategy: Strategy = ONE_DEVICE,
) -> TrainStep:
    """The pure function `(state, frozen, batch, rates, anchor) -> (state, metrics)`.

    `frozen` are all arrays of the model that are not in the state, `anchor` the pretrained backbone that
    L2-SP pulls to, if it does. The metrics are `loss` (without that pull), `accuracy` (against the unmixed
    labels) and `grad_norm` of the trainable part.
    """
    gradients = make_gradients(forward, options)

    def accumulated(trainable: Arrays, stats: Arrays, frozen: Arrays, batch: Batch, key: jax.Array):
        """The mean over equal parts of the batch, one in memory at a time.

        A part is every so many rows, so that it is the same rows however many devices share the batch.
        """
        count = options.accumulate
        parted = jax.tree.map(lambda x: x.reshape(-1, count, *x.shape[1:]), dict(batch))

        def part(carry, item):
            (total, stats), (index, key) = carry, item
            rows = jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, index, 1, keepdims=False), parted)
            found, stats = gradients(trainable, stats, frozen, rows, key)
            return (jax.tree.map(jnp.add, total, found), stats), None

        names = ("loss", "accuracy", *(name for name in WISHES if name in batch))
        zeros = ({k: jnp.zeros_like(v) for k, v in trainable.items()}, dict.fromkeys(names, 0.0))
        (total, stats), _ = jax.lax.scan(
            part, (zeros, stats), (jnp.arange(count), jax.random.split(key, count))
        )
        return jax.tree.map(lambda x: x / count, total), stats

    compute = strategy.average(gradients if options.accumulate == 1 else accumulated)

    def train_step(
        state: TrainState, frozen: Arrays, batch: Batch, rates: Rates, anchor: Mapping[str, jax.Array] = _NONE
    ):
        key = jax.random.fold_in(jax.random.key(state.seed), state.step)
        (grads, metrics), stats = compute(state.trainable, state.stats, frozen, batch, key)
        if options.l2_sp or options.l2_head:
            pull = {"backbone": options.l2_sp, "head": options.l2_head}
            grads = pulled(grads, state.trainable, anchor, **pull)
        if options.group_lasso:
            grads = lassoed(grads, state.trainable, options.group_lasso)
        if options.keep < 1:
            grads = still(grads, state.trainable)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.trainable, rates=rates)
        trainable = cast(Arrays, optax.apply_updates(state.trainable, updates))
        decay = options.ema_decay
        ema = {path: decay * value + (1 - decay) * trainable[path] for path, value in state.ema.items()}
        metrics["grad_norm"] = optax.tree.norm(grads)
        return TrainState(state.step + 1, trainable, stats, opt_state, ema, state.seed), metrics

    return train_step


def make_eval_step(forward: Forward) -> EvalStep:
    """The pure function `(arrays, batch) -> logits`; every block of `forward` must be in inference mode."""

    def eval_step(arrays: Arrays, batch: Batch) -> jax.Array:
        return forward(arrays, forward.inputs(batch))[0]

    return eval_step
