"""A sweep over heads: one program trains a grid of them on features that were extracted once."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from transfer_jax.search.grid import Grid
from transfer_jax.tasks import Metric, Task
from transfer_jax.training.compile import compile_function

KERNEL, BIAS = "head/classifier/kernel", "head/classifier/bias"
_BETAS, _EPSILON = (0.9, 0.999), 1e-8


@dataclasses.dataclass(frozen=True)
class Examples:
    """Features with their labels.

    Attributes:
        features: Features `(images, channels)`, or feature maps `(images, height, width, channels)` for a
            tail.
        labels: Labels, as their task has them, such as classes `(images,)`.
        weights: Weight of each image in the loss and the scores, `(images,)`; None weights all equally.
    """

    features: np.ndarray
    labels: np.ndarray
    weights: np.ndarray | None = None

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns features and weights as float32 arrays, and labels."""
        weights = np.ones(len(self.labels)) if self.weights is None else self.weights
        return {
            "features": np.asarray(self.features, np.float32),
            "labels": np.asarray(self.labels),
            "weights": np.asarray(weights, np.float32),
        }


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A trained head or tail of a grid, in its best epoch.

    Attributes:
        learning_rate: As in `Grid`.
        weight_decay: As in `Grid`.
        label_smoothing: As in `Grid`.
        seed: As in `Grid`.
        epoch: The epoch with the best scores on the validation images, from 1.
        score: Weighted mean of `Task.step_metric` over the validation images, such as the accuracy.
        loss: Weighted mean of the task's loss over the validation images.
        arrays: The trained arrays by path.
    """

    learning_rate: float
    weight_decay: float
    label_smoothing: float
    seed: int
    epoch: int
    score: float
    loss: float
    arrays: Mapping[str, np.ndarray] = dataclasses.field(repr=False)


@dataclasses.dataclass(frozen=True)
class Sweep:
    """The result of a sweep.

    Attributes:
        candidates: All candidates, best first: by the score on the validation images, then by the loss.
        metric: The metric of the score.
        epochs: Number of epochs until the last candidate stopped.
        compile_seconds: Seconds to compile.
    """

    candidates: tuple[Candidate, ...]
    metric: Metric
    epochs: int
    compile_seconds: float

    @classmethod
    def of(
        cls,
        grid: Grid,
        best: Mapping[str, Any],
        arrays: Mapping[str, np.ndarray],
        metric: Metric,
        **others: Any,
    ) -> "Sweep":
        """Returns a sweep from arrays whose first two axes are the seeds and the settings.

        Args:
            grid: The candidates.
            best: `epoch`, `score` and `loss` of each candidate, `(seeds, settings)`.
            arrays: The trained arrays by path, `(seeds, settings, …)`.
            metric: The metric of the score.
            **others: The other attributes.
        """
        found = [
            Candidate(
                *setting,
                seed,
                int(best["epoch"][s, g]),
                float(best["score"][s, g]),
                float(best["loss"][s, g]),
                {path: array[s, g] for path, array in arrays.items()},
            )
            for s, seed in enumerate(grid.seeds)
            for g, setting in enumerate(grid.settings())
        ]
        sign = 1 if metric.lower_is_better else -1
        found.sort(key=lambda candidate: (sign * candidate.score, candidate.loss))
        return cls(tuple(found), metric, **others)


def improved(metric: Metric, now: Mapping[str, jax.Array], best: Mapping[str, jax.Array]) -> jax.Array:
    """Returns True for the candidates whose score is better, or equal with a smaller loss."""
    better = metric.is_better(now["score"], best["score"])
    return better | ((now["score"] == best["score"]) & (now["loss"] < best["loss"]))


def worst(metric: Metric) -> float:
    """Returns the score of a candidate before its first epoch."""
    return np.inf if metric.lower_is_better else -np.inf


def sweep_heads(
    train: Examples,
    validation: Examples,
    task: Task,
    grid: Grid = Grid(),
    *,
    epochs: int = 100,
    batch_size: int = 256,
    patience: int = 10,
    dropout: float = 0.0,
) -> Sweep:
    """Trains every head of a grid, each until it no longer improves.

    The heads of one seed get the same batches, so that a step is one matrix product for all of them; the
    seeds are its batch axis. A head that has not improved for `patience` epochs is no longer updated, and the
    program ends when the last head stops.

    Args:
        train: The examples to train on.
        validation: The examples that select the best epoch of each head, and the best head.
        task: The task, with the constants of the training examples.
        grid: The heads.
        epochs: Largest number of epochs.
        batch_size: Number of images in a step; at most all training images.
        patience: Number of epochs without improvement after which a head stops.
        dropout: Dropout rate of the features in a training step, drawn for each seed.

    Returns:
        All heads, with `KERNEL` `(channels, outputs)` and `BIAS` `(outputs,)`.

    Raises:
        ValueError: If the features are not pooled, or have different numbers of channels.
    """
    if train.features.ndim != 2 or train.features.shape[1:] != validation.features.shape[1:]:
        raise ValueError(
            "heads need pooled features `(images, channels)` with the same number of channels, got "
            f"{train.features.shape} and {validation.features.shape}"
        )
    settings = np.asarray(grid.settings(), np.float32)
    program = functools.partial(
        _train,
        task=task,
        epochs=epochs,
        batch_size=min(batch_size, len(train.labels)),
        patience=patience,
        dropout=dropout,
    )
    arguments = (train.arrays(), validation.arrays(), settings, np.asarray(grid.seeds, np.uint32))
    compiled = compile_function(program, *arguments)
    best, last = jax.device_get(compiled(*arguments))
    arrays = {KERNEL: best["kernel"].transpose(0, 2, 1, 3), BIAS: best["bias"]}
    seconds = compiled.seconds
    return Sweep.of(grid, best, arrays, task.step_metric, epochs=int(last), compile_seconds=seconds)


def _train(
    train: Mapping[str, jax.Array],
    validation: Mapping[str, jax.Array],
    settings: jax.Array,
    seeds: jax.Array,
    *,
    task: Task,
    epochs: int,
    batch_size: int,
    patience: int,
    dropout: float,
) -> tuple[dict[str, jax.Array], jax.Array]:
    """Runs the sweep; returns the best state of all heads `(seeds, settings)`, and the number of epochs."""
    rates, decays, smoothings = settings.T
    count, (images, width) = len(settings), train["features"].shape
    steps = images // batch_size
    outputs, loss_of = task.outputs, task.loss("auto")
    shape = {"kernel": (width, count, outputs), "bias": (count, outputs)}
    zeros = {name: jnp.zeros((len(seeds), *each)) for name, each in shape.items()}

    def logits(head: dict[str, jax.Array], x: jax.Array) -> jax.Array:
        """Returns the outputs `(images, settings, outputs)`, by one matrix product."""
        flat = x @ head["kernel"].reshape(width, -1)
        return flat.reshape(-1, count, outputs) + head["bias"]

    def loss(head: dict[str, jax.Array], x: jax.Array, labels: jax.Array, weights: jax.Array) -> jax.Array:
        wanted = jax.vmap(task.targets, (None, 0), 1)(labels, smoothings)
        losses = loss_of(logits(head, x), wanted)
        return (losses * weights[:, None]).mean(0).sum()  # Each head has its own term of the sum.

    def epoch_of_seed(head: Any, moments: Any, seed: jax.Array, epoch: jax.Array, active: jax.Array):
        key = jax.random.fold_in(jax.random.key(seed), epoch)
        order = jax.random.permutation(key, images)[: steps * batch_size].reshape(steps, batch_size)
        rate = {"kernel": (rates * active)[:, None], "bias": (rates * active)[:, None]}
        decay = {"kernel": decays[:, None], "bias": 0.0}

        def step(carry: Any, index: jax.Array):
            head, moments = carry
            chosen = order[index]
            x = train["features"][chosen]
            if dropout:
                kept = jax.random.bernoulli(jax.random.fold_in(key, index), 1 - dropout, x.shape)
                x = jnp.where(kept, x / (1 - dropout), 0)
            grads = jax.grad(loss)(head, x, train["labels"][chosen], train["weights"][chosen])
            time = (epoch * steps + index + 1).astype(jnp.float32)
            first, second = (
                {name: beta * moment[name] + (1 - beta) * grads[name] ** power for name in grads}
                for beta, moment, power in zip(_BETAS, moments, (1, 2), strict=True)
            )
            correction = [1 - beta**time for beta in _BETAS]
            head = {
                name: value
                - rate[name]
                * (
                    first[name] / correction[0] / (jnp.sqrt(second[name] / correction[1]) + _EPSILON)
                    + decay[name] * value
                )
                for name, value in head.items()
            }
            return (head, (first, second)), None

        (head, moments), _ = jax.lax.scan(step, (head, moments), jnp.arange(steps))
        return head, moments

    def scores(head: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
        """Returns score and loss on the validation images, both `(settings,)`."""
        share = validation["weights"] / validation["weights"].sum()
        found = logits(head, validation["features"]).swapaxes(0, 1)
        scores = task.example_scores(found, validation["labels"])
        losses = loss_of(found, jnp.broadcast_to(targets, (count, *targets.shape)))
        return (scores * share).sum(-1), (losses * share).sum(-1)

    targets = task.targets(validation["labels"])

    def one_epoch(carry: Any):
        epoch, head, moments, best = carry
        active = epoch - best["epoch"] < patience
        head, moments = jax.vmap(epoch_of_seed, (0, 0, 0, None, 0))(head, moments, seeds, epoch, active)
        score, loss = jax.vmap(scores)(head)
        now = {"score": score, "loss": loss, "epoch": jnp.full_like(best["epoch"], epoch + 1)}
        better = improved(task.step_metric, now, best) & active
        best = {
            **{name: jnp.where(better, value, best[name]) for name, value in now.items()},
            "kernel": jnp.where(better[:, None, :, None], head["kernel"], best["kernel"]),
            "bias": jnp.where(better[..., None], head["bias"], best["bias"]),
        }
        return epoch + 1, head, moments, best

    def unfinished(carry: Any) -> jax.Array:
        epoch, _, _, best = carry
        return (epoch < epochs) & jnp.any(epoch - best["epoch"] < patience)

    heads = (len(seeds), count)
    best = {
        "epoch": jnp.zeros(heads, jnp.int32),
        "score": jnp.full(heads, worst(task.step_metric)),
        "loss": jnp.full(heads, jnp.inf),
        **zeros,
    }
    start = (jnp.zeros((), jnp.int32), zeros, (zeros, zeros), best)
    last, _, _, best = jax.lax.while_loop(unfinished, one_epoch, start)
    return best, last
