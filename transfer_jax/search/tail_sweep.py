"""A sweep over tails, the top blocks with the head: one program trains a grid of them on cached features."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from transfer_jax.freezing.labels import trainable_blocks
from transfer_jax.models.flat_arrays import Arrays
from transfer_jax.report.progress import Progress
from transfer_jax.search.head_sweep import Examples, Grid, Sweep, improved, worst
from transfer_jax.tasks import Task
from transfer_jax.training.compile import compile_function
from transfer_jax.training.optimizer import make_optimizer
from transfer_jax.training.phase_programs import PhasePrograms
from transfer_jax.training.phase_split import PhaseSplit
from transfer_jax.training.phase_step import make_phase_step
from transfer_jax.training.phase_trainer import fresh_state
from transfer_jax.training.run import Run
from transfer_jax.training.state import TrainState

TAIL_GRID = Grid(
    learning_rates=(1e-4, 3e-4, 1e-3), weight_decays=(0.0, 0.01), label_smoothings=(0.0,), seeds=(0, 1)
)
"""The default candidates: twelve tails."""

Settings = Mapping[str, jax.Array]


def sweep_tails(
    run: Run,
    parts: PhaseSplit,
    train: Examples,
    validation: Examples,
    grid: Grid = TAIL_GRID,
    *,
    epochs: int = 30,
    patience: int = 5,
    progress: Progress,
) -> Sweep:
    """Trains the trainable parameters of a phase with every setting of a grid, each until it stops improving.

    One step trains all candidates: it is the package's training step under `jax.vmap`. The candidates of one
    seed get the same batches. A candidate that has not improved for `patience` epochs is no longer updated.
    Parameters, moments and activations of all candidates are in memory at once.

    Args:
        run: The network, the batch size and the precision.
        parts: The phase, which must train on cached features. The grid replaces its learning rate, weight
            decay and label smoothing.
        train: The examples to train on, with features `(images, …)` at the boundary.
        validation: The examples that select the best epoch of each candidate, and the best candidate.
        grid: The candidates.
        epochs: Largest number of epochs.
        patience: Number of epochs without improvement after which a candidate stops.
        progress: Receives the progress of training.

    Returns:
        All candidates, with their trained arrays.
    """
    size = min(run.batch_size, len(train.labels))
    # Any weight decay, so that the optimizer applies the one of each candidate.
    parts = dataclasses.replace(parts, phase=dataclasses.replace(parts.phase, weight_decay=1.0))
    programs = PhasePrograms(run, parts)
    rates, decays, smoothings = np.asarray(grid.settings(), np.float32).T
    settings = {"rate": rates, "decay": decays, "smoothing": smoothings}
    state, frozen = fresh_state(run, parts, run.arrays)
    states = _repeated(state, grid)
    shape, metric = states.step.shape, run.task.step_metric
    best = {
        "epoch": np.zeros(shape, np.int32),
        "score": np.full(shape, worst(metric), np.float32),
        "loss": np.full(shape, np.inf, np.float32),
        "arrays": jax.tree.map(jnp.zeros_like, _evaluated(states)),
    }
    examples, batches = jax.device_put((train.arrays(), _in_batches(validation, size)))
    active, steps = np.ones(shape, np.float32), len(train.labels) // size
    step = compile_function(
        _make_step(programs, parts),
        *(states, frozen, examples, np.zeros((shape[0], size), np.int32), settings, active),
        donate=(0,),
    )
    score = compile_function(
        _make_score(programs, run.task), states, best, frozen, batches, active, np.int32(0)
    )
    progress.start(f"training {active.size} tails", epochs)
    epoch = 0
    while epoch < epochs and active.any():
        for rows in _orders(grid, epoch, len(train.labels), steps, size):
            states = step(states, frozen, examples, rows, settings, active)
        epoch += 1
        best = score(states, best, frozen, batches, active, np.int32(epoch))
        active = (epoch - np.asarray(best["epoch"]) < patience).astype(np.float32)
        extreme = np.min if metric.lower_is_better else np.max
        progress.advance(1, **{metric.name: float(extreme(best["score"]))})
    progress.finish()
    best = jax.device_get(best)
    seconds = step.seconds + score.seconds
    return Sweep.of(grid, best, best["arrays"], metric, epochs=epoch, compile_seconds=seconds)


def _repeated(state: TrainState, grid: Grid) -> TrainState:
    """Returns the state of every candidate, with leading axes `(seeds, settings)`."""
    shape = (len(grid.seeds), len(grid.settings()))
    states = jax.tree.map(lambda leaf: jnp.tile(leaf, (*shape, *(1,) * leaf.ndim)), state)
    seeds = np.tile(np.asarray(grid.seeds, np.uint32)[:, None], (1, shape[1]))
    return dataclasses.replace(states, seed=jnp.asarray(seeds))


def _evaluated(state: TrainState) -> Arrays:
    """Returns the arrays of a state to evaluate with."""
    return {**state.averaged(), **state.model_state}


def _orders(grid: Grid, epoch: int, images: int, steps: int, size: int) -> np.ndarray:
    """Returns the rows of the batches of an epoch, `(steps, seeds, size)`."""
    orders = [np.random.default_rng((seed, epoch)).permutation(images) for seed in grid.seeds]
    rows = np.stack(orders)[:, : steps * size].reshape(len(grid.seeds), steps, size)
    return rows.transpose(1, 0, 2).astype(np.int32)


def _in_batches(examples: Examples, size: int) -> dict[str, np.ndarray]:
    """Returns examples in batches of one size; examples of weight zero fill the last batch."""
    arrays = examples.arrays()
    arrays["weights"] = arrays["weights"] / arrays["weights"].sum()
    missing = -len(examples.labels) % size

    def batches(array: np.ndarray) -> np.ndarray:
        filled = np.concatenate([array, np.zeros((missing, *array.shape[1:]), array.dtype)])
        return filled.reshape(-1, size, *array.shape[1:])

    return {name: batches(array) for name, array in arrays.items()}


def _make_step(programs: PhasePrograms, parts: PhaseSplit) -> Any:
    """Returns a step of all candidates: `(states, frozen, examples, rows, settings, active) -> states`."""
    blocks = trainable_blocks(parts.labels)

    def step(
        state: TrainState, frozen: Arrays, batch: Arrays, setting: Settings, active: jax.Array
    ) -> TrainState:
        options = dataclasses.replace(programs.options, label_smoothing=setting["smoothing"])
        optimizer = make_optimizer(parts.phase, parts.labels, setting["decay"])
        rates: Any = dict.fromkeys(blocks, setting["rate"] * active)
        return make_phase_step(programs.forward, optimizer, options)(state, frozen, batch, rates)[0]

    def step_of_all(
        states: TrainState,
        frozen: Arrays,
        examples: Arrays,
        rows: jax.Array,
        settings: Settings,
        active: jax.Array,
    ) -> TrainState:
        def of_seed(states: TrainState, rows: jax.Array, active: jax.Array) -> TrainState:
            batch = {
                name: examples[column][rows]
                for name, column in (("features", "features"), ("label", "labels"), ("weight", "weights"))
            }
            return jax.vmap(step, (0, None, None, 0, 0))(states, frozen, batch, settings, active)

        return jax.vmap(of_seed)(states, rows, active)

    return step_of_all


def _make_score(programs: PhasePrograms, task: Task) -> Any:
    """Returns an update of the best states: `(states, best, frozen, batches, active, epoch) -> best`."""
    evaluate, loss = programs.functions["evaluate"], task.loss("auto")

    def score(
        states: TrainState,
        best: dict[str, Any],
        frozen: Arrays,
        batches: Arrays,
        active: jax.Array,
        epoch: jax.Array,
    ) -> dict[str, Any]:
        def scored(batch: Arrays) -> tuple[jax.Array, jax.Array]:
            """Returns the terms of score and loss of one batch, both `(seeds, settings)`."""

            def logits(state: TrainState) -> jax.Array:
                return evaluate({**frozen, **_evaluated(state)}, {"features": batch["features"]})

            found, targets = jax.vmap(jax.vmap(logits))(states), task.targets(batch["labels"])
            scores = task.example_scores(found, batch["labels"])
            losses = loss(found, jnp.broadcast_to(targets, (*found.shape[:2], *targets.shape)))
            return (scores * batch["weights"]).sum(-1), (losses * batch["weights"]).sum(-1)

        scores, losses = (each.sum(0) for each in jax.lax.map(scored, batches))
        found = {"score": scores, "loss": losses}
        chosen = improved(task.step_metric, found, best) & (active > 0)
        now = {"epoch": jnp.full_like(best["epoch"], epoch), **found, "arrays": _evaluated(states)}

        def better(new: jax.Array, old: jax.Array) -> jax.Array:
            return jnp.where(chosen.reshape(*chosen.shape, *(1,) * (new.ndim - 2)), new, old)

        return jax.tree.map(better, now, best)

    return score
