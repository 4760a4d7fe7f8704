"""The training step of any model: gradients of the trainable part only, and its update."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from transfer_jax.freezing.function_split import Split
from transfer_jax.freezing.trees import combine
from transfer_jax.training.state import TrainState

Metrics = dict[str, jax.Array]
Loss = Callable[[Any, Any], Any]
"""`loss(outputs, batch)`, which returns a scalar, or a scalar and a dictionary of scalar metrics."""
TrainStep = Callable[..., tuple[TrainState, Metrics]]
Objective = Callable[[Any, Any, Any, Any, jax.Array], tuple[jax.Array, tuple[Any, Metrics]]]
"""A function of trainable, model state, frozen, inputs and key, to `(loss, (model_state, metrics))`."""
Gradients = Callable[[Any, Any, Any, Any, jax.Array], tuple[tuple[Any, Metrics], Any]]
"""A function of the same arguments. It returns `((gradients, metrics), model_state)`."""


def make_train_step(
    loss: Loss,
    optimizer: optax.GradientTransformation,
    split: Split | Callable[..., Any],
    *,
    accumulate: int = 1,
    ema_decay: float = 0.0,
) -> TrainStep:
    """Returns the pure function `(state, frozen, features, batch, rates=None) -> (state, metrics)`.

    It differentiates the loss with respect to `state.trainable` only, so that backward stops at the features.
    The random key of a step follows from `state.seed` and `state.step`. Compile it with
    `jax.jit(step, donate_argnums=0)`. `fit` trains with the same step.

    Example:
        >>> def loss(logits, batch):
        ...     return optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"]).mean()
        >>> step = jax.jit(make_train_step(loss, optimizer, split), donate_argnums=0)
        >>> state = TrainState.create(trainable, optimizer, model_state)
        >>> state, metrics = step(state, frozen, features, {"label": label})

    The arguments of the step are the state; the frozen parameters; the features, which are the result of
    `split.prefix`, or `{}` if there are none; the batch, which has at least the leaves in `split.inputs`; and
    `rates`, an argument of the optimizer's `update` that may change in each step without a new compilation.

    Its metrics are `loss`, those that the loss returns, and `grad_norm`, the norm of the trainable gradients.

    Args:
        loss: `loss(outputs, batch)`, which returns a scalar, or a scalar and a dictionary of scalar metrics.
        optimizer: Any optimizer of the trainable parameters. Its `update` also receives `value`, the loss.
        split: The split of the model; or the model itself, `function(params, state, batch, key)`, for steps
            without features.
        accumulate: Number of equal parts of the batch whose gradients are averaged, so that one of them is in
            memory at a time. Part `i` has every `accumulate`-th example from example `i` on.
        ema_decay: Decay of the moving averages of a state that has them.
    """
    suffix = split.suffix if isinstance(split, Split) else _without_features(split)

    def objective(trainable: Any, model_state: Any, frozen: Any, inputs: Any, key: jax.Array) -> Any:
        features, batch = inputs
        found = suffix(trainable, frozen, model_state, features, batch, key)
        outputs, model_state = (found, None) if model_state is None else found
        value = loss(outputs, batch)
        value, metrics = value if isinstance(value, tuple) else (value, {})
        return value, (model_state, dict(metrics))

    take_step = make_step(make_gradients(objective), optimizer, accumulate=accumulate, ema_decay=ema_decay)

    def train_step(
        state: TrainState, frozen: Any, features: Mapping[str, jax.Array], batch: Any, rates: Any = None
    ) -> tuple[TrainState, Metrics]:
        extra = {} if rates is None else {"rates": rates}
        return take_step(state, frozen, (features, batch), **extra)

    return train_step


def make_gradients(objective: Objective) -> Gradients:
    """Returns the gradients of an objective with respect to its first argument only."""

    def gradients(trainable: Any, model_state: Any, frozen: Any, inputs: Any, key: jax.Array) -> Any:
        (value, (model_state, metrics)), grads = jax.value_and_grad(objective, has_aux=True)(
            trainable, model_state, frozen, inputs, key
        )
        return (grads, {"loss": value, **metrics}), model_state

    return gradients


def make_step(
    gradients: Gradients,
    optimizer: optax.GradientTransformation,
    *,
    accumulate: int = 1,
    ema_decay: float = 0.0,
    average: Callable[[Gradients], Gradients] = lambda gradients: gradients,
) -> TrainStep:
    """Returns the pure function `(state, frozen, inputs, regularize, **extra) -> (state, metrics)`.

    `regularize` is a function of the gradients that returns other ones, and `extra` are further arguments of
    the optimizer's `update`.

    Args:
        gradients: The function of `make_gradients`.
        optimizer: The optimizer of the trainable parameters.
        accumulate: As in `make_train_step`.
        ema_decay: As in `make_train_step`.
        average: Turns the gradients of a shard of the batch into those of the batch.
    """
    compute = average(gradients if accumulate == 1 else _accumulated(gradients, accumulate))
    optimizer = optax.with_extra_args_support(optimizer)

    def step(
        state: TrainState,
        frozen: Any,
        inputs: Any,
        regularize: Callable[[Any], Any] | None = None,
        **extra: Any,
    ) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(jax.random.key(state.seed), state.step)
        (grads, metrics), model_state = compute(state.trainable, state.model_state, frozen, inputs, key)
        if regularize is not None:
            grads = regularize(grads)
        extra = {"value": metrics["loss"], **extra}
        updates, opt_state = optimizer.update(grads, state.opt_state, state.trainable, **extra)
        trainable = optax.apply_updates(state.trainable, updates)
        ema = state.ema
        if ema is not None:
            ema = jax.tree.map(lambda old, new: ema_decay * old + (1 - ema_decay) * new, ema, trainable)
        metrics["grad_norm"] = optax.tree.norm(grads)
        return TrainState(state.step + 1, trainable, model_state, opt_state, ema, state.seed), metrics

    return step


def _without_features(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a model with the arguments of `Split.suffix`."""

    def suffix(trainable: Any, frozen: Any, state: Any, features: Any, batch: Any, key: jax.Array) -> Any:
        del features
        return function(combine(trainable, frozen), state, batch, key)

    return suffix


def _accumulated(gradients: Gradients, count: int) -> Gradients:
    """Returns the means over equal parts of a batch, one of which is in memory at a time.

    Part `i` has every `count`-th row from row `i` on, whatever the number of devices. Sums are in at least
    float32.
    """

    def mean(trainable: Any, model_state: Any, frozen: Any, inputs: Any, key: jax.Array) -> Any:
        sizes = {leaf.shape[0] for leaf in jax.tree.leaves(inputs)}
        if any(size % count for size in sizes):
            raise ValueError(
                f"a batch of {max(sizes)} examples is not divisible by accumulate={count}; "
                "choose another batch size"
            )
        parted = jax.tree.map(lambda x: x.reshape(-1, count, *x.shape[1:]), inputs)

        def rows(index: Any) -> Any:
            return jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, index, 1, keepdims=False), parted)

        def part(carry: Any, item: Any) -> Any:
            (total, model_state), (index, key) = carry, item
            result, model_state = gradients(trainable, model_state, frozen, rows(index), key)
            return (jax.tree.map(jnp.add, total, result), model_state), None

        shapes = jax.eval_shape(lambda: gradients(trainable, model_state, frozen, rows(0), key))[0]
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, _sum_dtype(leaf.dtype)), shapes)
        (total, model_state), _ = jax.lax.scan(
            part, (zeros, model_state), (jnp.arange(count), jax.random.split(key, count))
        )
        grads, metrics = jax.tree.map(lambda x: x / count, total)
        return (jax.tree.map(lambda x, leaf: x.astype(leaf.dtype), grads, shapes[0]), metrics), model_state

    return mean


def _sum_dtype(dtype: jnp.dtype) -> jnp.dtype:
    """Returns the dtype in which arrays of a dtype are summed."""
    return jnp.promote_types(dtype, jnp.float32) if jnp.issubdtype(dtype, jnp.floating) else dtype
