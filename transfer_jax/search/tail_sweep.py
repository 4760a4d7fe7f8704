"""Many suffixes at once: one program trains a grid of them on the cached features of their boundary."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from transfer_jax.freezing.labels import trainable_blocks
from transfer_jax.models.flat_arrays import Arrays
from transfer_jax.report.progress import Progress
from transfer_jax.search.heads_sweep import Examples, Grid, Sweep
from transfer_jax.training.compile import compile_function
from transfer_jax.training.optimizer import make_optimizer
from transfer_jax.training.phase_programs import PhasePrograms
from transfer_jax.training.phase_split import PhaseSplit
from transfer_jax.training.phase_trainer import fresh_state
from transfer_jax.training.run import Run
from transfer_jax.training.state import TrainState
from transfer_jax.training.step import make_train_step

SUFFIX_GRID = Grid(
    learning_rates=(1e-4, 3e-4, 1e-3), weight_decays=(0.0, 0.01), label_smoothings=(0.0,), seeds=(0, 1)
)
"""What is tried if nothing is said: twelve suffixes."""

Settings = Mapping[str, jax.Array]


def sweep_suffixes(
    run: Run,
    parts: PhaseSplit,
    train: Examples,
    validation: Examples,
    grid: Grid = SUFFIX_GRID,
    *,
    epochs: int = 30,
    patience: int = 5,
    progress: Progress,
) -> Sweep:
    """Trains what a phase trains at every point of a grid, each until it no longer gets better.

    One step trains all of them, by the package's own step under `jax.vmap`; those of one seed are given the
    same batches. A candidate that has not become better for `patience` epochs stands still. Parameters,
    moments and activations of all are in memory at once.

    Args:
        run: Network, batch size and precision.
        parts: The phase, which must train on cached features; its rate, decay and smoothing are the grid's.
        train: What they learn from, `(images, *features at the boundary)`.
        validation: What decides which epoch, and which candidate, is best.
        grid: The candidates.
        epochs: Epochs at most.
        patience: Epochs without a gain after which a candidate stops.
        progress: Where to report to.
    """
    size = min(run.batch_size, len(train.labels))
    # With any decay, or else there would be no place for it in the optimizer's state.
    parts = dataclasses.replace(parts, phase=dataclasses.replace(parts.phase, weight_decay=1.0))
    programs = PhasePrograms(run, parts)
    rates, decays, smoothings = np.asarray(grid.settings(), np.float32).T
    settings = {"rate": rates, "decay": decays, "smoothing": smoothings}
    state, frozen = fresh_state(run, parts, run.arrays)
    states = _repeated(state, grid)
    shape = states.step.shape
    best = {
        "epoch": np.zeros(shape, np.int32),
        "accuracy": np.full(shape, -1, np.float32),
        "log_loss": np.full(shape, np.inf, np.float32),
        "arrays": jax.tree.map(jnp.zeros_like, states.evaluated()),
    }
    examples, held_out = jax.device_put((train.arrays(), _in_batches(validation, size)))
    active, steps = np.ones(shape, np.float32), len(train.labels) // size
    step = compile_function(
        _make_step(programs, parts),
        *(states, frozen, examples, np.zeros((shape[0], size), np.int32), settings, active),
        donate=(0,),
    )
    score = compile_function(_make_score(programs), states, best, frozen, held_out, active, np.int32(0))
    progress.start(f"training {active.size} suffixes", epochs)
    epoch = 0
    while epoch < epochs and active.any():
        for rows in _orders(grid, epoch, len(train.labels), steps, size):
            states = step(states, frozen, examples, rows, settings, active)
        epoch += 1
        best = score(states, best, frozen, held_out, active, np.int32(epoch))
        active = (epoch - np.asarray(best["epoch"]) < patience).astype(np.float32)
        progress.advance(1, accuracy=float(np.max(best["accuracy"])))
    progress.finish()
    best = jax.device_get(best)
    seconds = step.seconds + score.seconds
    return Sweep.of(grid, best, best["arrays"], epochs=epoch, compile_seconds=seconds)


def _repeated(state: TrainState, grid: Grid) -> TrainState:
    """The state of every candidate, on axes of the seeds and the settings."""
    shape = (len(grid.seeds), len(grid.settings()))
    states = jax.tree.map(lambda leaf: jnp.tile(leaf, (*shape, *(1,) * leaf.ndim)), state)
    seeds = np.tile(np.asarray(grid.seeds, np.uint32)[:, None], (1, shape[1]))
    return dataclasses.replace(states, seed=jnp.asarray(seeds))


def _orders(grid: Grid, epoch: int, images: int, steps: int, size: int) -> np.ndarray:
    """Rows of the batches of an epoch, `(steps, seeds, size)`."""
    orders = [np.random.default_rng((seed, epoch)).permutation(images) for seed in grid.seeds]
    rows = np.stack(orders)[:, : steps * size].reshape(len(grid.seeds), steps, size)
    return rows.transpose(1, 0, 2).astype(np.int32)


def _in_batches(examples: Examples, size: int) -> dict[str, np.ndarray]:
    """Examples in equal batches, the last one filled up by such as weigh nothing."""
    arrays = examples.arrays()
    arrays["weights"] = arrays["weights"] / arrays["weights"].sum()
    missing = -len(examples.labels) % size

    def batches(array: np.ndarray) -> np.ndarray:
        filled = np.concatenate([array, np.zeros((missing, *array.shape[1:]), array.dtype)])
        return filled.reshape(-1, size, *array.shape[1:])

    return {name: batches(array) for name, array in arrays.items()}


def _make_step(programs: PhasePrograms, parts: PhaseSplit) -> Any:
    """A step of all candidates: `(states, frozen, examples, rows, settings, active) -> states`."""
    blocks = trainable_blocks(parts.labels)

    def step(
        state: TrainState, frozen: Arrays, batch: Arrays, setting: Settings, active: jax.Array
    ) -> TrainState:
        options = dataclasses.replace(programs.options, label_smoothing=setting["smoothing"])
        optimizer = make_optimizer(parts.phase, parts.labels, setting["decay"])
        rates: Any = dict.fromkeys(blocks, setting["rate"] * active)
        return make_train_step(programs.forward, optimizer, options)(state, frozen, batch, rates)[0]

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


def _make_score(programs: PhasePrograms) -> Any:
    """The best of all candidates so far: `(states, best, frozen, held_out, active, epoch) -> best`."""
    evaluate = programs.functions["evaluate"]

    def score(
        states: TrainState,
        best: dict[str, Any],
        frozen: Arrays,
        held_out: Arrays,
        active: jax.Array,
        epoch: jax.Array,
    ) -> dict[str, Any]:
        def scored(batch: Arrays) -> tuple[jax.Array, jax.Array]:
            """Accuracy and log loss `(seeds, settings)`, of a batch's share."""

            def logits(state: TrainState) -> jax.Array:
                return evaluate({**frozen, **state.evaluated()}, {"features": batch["features"]})

            found = jax.nn.log_softmax(jax.vmap(jax.vmap(logits))(states))
            correct = found.argmax(-1) == batch["labels"]
            likely = (found * jax.nn.one_hot(batch["labels"], found.shape[-1])).sum(-1)
            return (correct * batch["weights"]).sum(-1), -(likely * batch["weights"]).sum(-1)

        accuracy, log_loss = (each.sum(0) for each in jax.lax.map(scored, held_out))
        gained = (accuracy > best["accuracy"]) | (
            (accuracy == best["accuracy"]) & (log_loss < best["log_loss"])
        )
        gained &= active > 0
        now = {
            "epoch": jnp.full_like(best["epoch"], epoch),
            "accuracy": accuracy,
            "log_loss": log_loss,
            "arrays": states.evaluated(),
        }

        def better(new: jax.Array, old: jax.Array) -> jax.Array:
            return jnp.where(gained.reshape(*gained.shape, *(1,) * (new.ndim - 2)), new, old)

        return jax.tree.map(better, now, best)

    return score
