"""Measurements between the steps of a phase: gradients, plasticity, CKA, time of the gradient exchange.

Each runs a program of its own on the first batches of the phase and changes nothing in the trainer's state.
"""

import time
from typing import Any

import jax
import numpy as np

from transfer_jax.freezing.learning_rates import Rates
from transfer_jax.models.flat_arrays import Arrays
from transfer_jax.training.cka import LEAST_IMAGES, cka
from transfer_jax.training.compile import compile_function
from transfer_jax.training.phase_trainer import PhaseTrainer


def measure_gradients(trainer: PhaseTrainer, rates: Rates, batches: int) -> dict[str, Any]:
    """Returns the statistics of `gradient_statistics.STATISTICS` by tensor, averaged over batches.

    Args:
        trainer: The phase.
        rates: The learning rates of the update whose size is measured.
        batches: Number of batches, from the first one of the phase on.
    """
    reference = trainer.run.pretrained(trainer.state.trainable)
    sample = trainer.run.strategy.batch(trainer.sample(batches), axis=1)
    arguments = (trainer.state, trainer.computed_frozen, sample, rates, reference)
    return jax.device_get(trainer.programs.compiled("measure", *arguments, variant=batches)(*arguments))


def measure_plasticity(trainer: PhaseTrainer) -> dict[str, float]:
    """Returns the plasticity of each trainable block; see `make_plasticity`."""
    return {name: float(value) for name, value in _compare(trainer, "plasticity").items()}


def measure_similarity(trainer: PhaseTrainer) -> dict[str, float]:
    """Returns the CKA to the pretrained activations of each block above the frozen prefix.

    Both start from the current output of the prefix. Empty if only the head trains, or if a batch has fewer
    than `LEAST_IMAGES` images.
    """
    if trainer.parts.boundary == trainer.run.block_names[-1] or trainer.run.batch_size < LEAST_IMAGES:
        return {}
    return cka(_compare(trainer, "similarity"))


def _compare(trainer: PhaseTrainer, name: str) -> dict[str, Any]:
    """Runs a program on the current and the pretrained arrays, and on the first batch of the phase."""
    arrays = trainer.all_arrays()
    reference = {path: trainer.run.arrays[path] for path in arrays}
    batch = {name: values[0] for name, values in trainer.sample(1).items()}
    arguments = arrays, reference, trainer.run.strategy.whole(batch)
    return jax.device_get(trainer.programs.compiled(name, *arguments)(*arguments))


def measure_exchange_seconds(trainer: PhaseTrainer) -> float:
    """Returns the seconds that averaging the gradients over all devices takes by itself; 0 on one device."""
    strategy, state = trainer.run.strategy, trainer.state
    if strategy.count == 1:
        return 0.0

    def no_gradients(trainable: Arrays, stats: Arrays, frozen: Arrays, batch: Any, key: jax.Array) -> Any:
        return (trainable, {}), stats

    batch = strategy.batch({"label": np.zeros(len(strategy.rows(trainer.run.batch_size)), np.int32)})
    arguments = state.trainable, state.model_state, {}, batch, jax.random.key(0)
    average = strategy.average(no_gradients, dtype=trainer.run.dtype, exchanged=trainer.run.exchange_dtype)
    exchange = compile_function(average, *arguments, strategy=strategy, batch=3)
    seconds = []
    for _ in range(4):
        started = time.monotonic()
        jax.block_until_ready(exchange(*arguments))
        seconds.append(time.monotonic() - started)
    return min(seconds)
