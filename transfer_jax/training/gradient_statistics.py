"""Statistics of gradients, updates and distances to the pretrained values, by tensor or block.

They are computed by a program of its own on a few fixed batches, so that training steps do not become slower
and the training state does not change.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from transfer_jax.freezing.learning_rates import Rates
from transfer_jax.freezing.selectors import is_norm
from transfer_jax.models.flat_arrays import Arrays
from transfer_jax.models.paths import block_of
from transfer_jax.training.forward import Batch
from transfer_jax.training.state import TrainState
from transfer_jax.training.step import Gradients

STATISTIC_BATCHES = 5
"""Number of batches of a statistic, as in the code of the authors of auto-RGN and auto-SNR."""
STATISTICS = ("grad_norm", "rgn", "snr", "update", "distance")
"""Statistics by tensor: norm of the gradient; that norm relative to the parameter's; signal-to-noise ratio of
the gradient; norm of the next update and distance from the pretrained value, both relative to the parameter's
norm."""

_SNR_LEAST = 0.95

Measure = Callable[[TrainState, Arrays, Batch, Rates, Arrays], dict[str, Any]]


def make_measure(gradients: Gradients, optimizer: optax.GradientTransformationExtraArgs) -> Measure:
    """Returns the pure function `(state, frozen, batches, rates, reference) -> statistics`.

    `batches` has several batches along a first axis, and `reference` the pretrained arrays of the trainable
    parameters. The statistics are those of `STATISTICS`, each a dictionary from path to a scalar, averaged
    over the batches.

    Args:
        gradients: The function of `make_phase_gradients`.
        optimizer: The optimizer, for the next update.
    """

    def statistics(state: TrainState, frozen: Arrays, batches: Batch, rates: Rates, reference: Arrays):
        sizes = {path: _norm(array) for path, array in state.trainable.items()}

        key = jax.random.key(state.seed)

        def add(carry: Any, batch: Batch):
            (grads, metrics), _ = gradients(state.trainable, state.model_state, frozen, batch, key)
            norms = {path: _norm(grad) for path, grad in grads.items()}
            found = {
                "loss": metrics["loss"],
                "grad_norm": norms,
                "rgn": {path: norm / jnp.maximum(sizes[path], 1e-30) for path, norm in norms.items()},
                "snr": {path: signal_to_noise(grad) for path, grad in grads.items()},
            }
            return jax.tree.map(jnp.add, carry, (grads, found)), None

        count = len(jax.tree.leaves(batches)[0])
        zero = {path: jnp.zeros(()) for path in sizes}
        nothing = {"loss": jnp.zeros(()), **dict.fromkeys(("grad_norm", "rgn", "snr"), zero)}
        start = (jax.tree.map(jnp.zeros_like, state.trainable), nothing)
        if count == 1:  # A CPU is twice as fast outside of a loop.
            (grads, found), _ = add(start, {name: values[0] for name, values in batches.items()})
        else:
            (grads, found), _ = jax.lax.scan(add, start, dict(batches))
        grads, found = jax.tree.map(lambda x: x / count, (grads, found))
        extra = {"rates": rates, "value": found.pop("loss")}
        updates: Any = optimizer.update(grads, state.opt_state, state.trainable, **extra)[0]
        relative = {path: jnp.maximum(size, 1e-30) for path, size in sizes.items()}
        found["update"] = {path: _norm(updates[path]) / relative[path] for path in sizes}
        found["distance"] = {
            path: _norm(state.trainable[path] - reference[path]) / relative[path]
            for path in sizes
            if path in reference
        }
        return found

    return statistics


def signal_to_noise(grad: jax.Array) -> jax.Array:
    """Returns the mean of g^2 / (variance of g over its last axis, the outputs, + 1e-8) for a gradient g.

    Source: the criterion of Mahsereci et al. 2017, arXiv:1703.09580, as Lee et al. 2022, arXiv:2210.11466,
    compute it for auto-SNR.
    """
    if grad.shape[-1] < 2:
        return jnp.asarray(jnp.inf)
    return jnp.mean(jnp.square(grad) / (jnp.var(grad, axis=-1, ddof=1, keepdims=True) + 1e-8))


def multipliers(statistic: str, found: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Returns the factor of each tensor's learning rate, by path; 0 for normalizations.

    For `rgn` it is the relative gradient norm divided by the largest one. For `snr` it is 1 if the
    signal-to-noise ratio is at least 0.95, else 0. A parameter that is zero has no relative norm; its factor
    is 1.

    Source: Lee et al. 2022, arXiv:2210.11466, auto-RGN and auto-SNR.
    """
    values = {path: float(value) for path, value in found[statistic].items()}
    if statistic == "snr":
        scaled = {path: float(value >= _SNR_LEAST) for path, value in values.items()}
    else:
        known = {path: value for path, value in values.items() if value < 1e20 and not is_norm(path)}
        most = max(known.values(), default=1.0) or 1.0
        scaled = {path: known.get(path, most) / most for path in values}
    return {path: 0.0 if is_norm(path) else value for path, value in scaled.items()}


def by_block(found: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Returns statistics by block: the norm over its tensors for `grad_norm`, the mean for the others."""
    blocks: dict[str, dict[str, list[float]]] = {}
    for name, tensors in found.items():
        for path, value in tensors.items():
            blocks.setdefault(name, {}).setdefault(block_of(path), []).append(float(value))
    return {
        name: {
            block: float(np.linalg.norm(values)) if name == "grad_norm" else float(np.mean(values))
            for block, values in each.items()
        }
        for name, each in blocks.items()
    }


def _norm(array: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.sum(jnp.square(array)))
