"""The optimizer of a phase, made from its labels."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from transfer_jax.freezing.labels import multi_transform, trainable_blocks
from transfer_jax.freezing.phase import Phase


def make_optimizer(
    phase: Phase, labels: Mapping[str, str], weight_decay: float | jax.Array | None = None
) -> optax.GradientTransformationExtraArgs:
    """One transformation a block that trains, joined by `optax.multi_transform`.

    The learning rates are not part of it: each call of `update` is given `rates`, so that changing them
    compiles nothing. The clipping is always there, if only as nothing, so that states of phases with and
    without it have one structure.

    Args:
        phase: Which optimizer, decay and clipping.
        labels: From path to `frozen` or the block.
        weight_decay: Instead of the phase's, such as one that is known when the program runs.
    """
    decay = phase.weight_decay if weight_decay is None else weight_decay
    blocks = {
        name: optax.chain(*_direction(phase, decay), _follow_rate(name)) for name in trainable_blocks(labels)
    }
    clip = optax.identity() if phase.clip_norm is None else _clip(phase.clip_norm)
    return optax.chain(clip, multi_transform(blocks, labels))


def _clip(limit: float) -> optax.GradientTransformation:
    """Scales all gradients by one factor if their norm is above a limit.

    It is `optax.clip_by_global_norm` without its division of every gradient, which XLA does not fuse with
    what follows: three times the size of the gradients less is read and written.
    """

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        del params
        factor = jnp.minimum(1.0, limit / optax.tree.norm(updates))
        return jax.tree.map(lambda update: factor * update, updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def _direction(phase: Phase, decay: float | jax.Array) -> list[optax.GradientTransformation]:
    match phase.optimizer:
        case "adamw":
            scale = optax.scale_by_adam(b1=phase.momentum)
        case "lion":
            scale = optax.scale_by_lion(b1=phase.momentum)
        case "rmsprop":
            scale = optax.scale_by_rms(decay=0.9, eps=1e-7, eps_in_sqrt=False)
        case _:
            scale = optax.trace(decay=phase.momentum)
    if isinstance(decay, (int, float)) and decay == 0:
        return [scale]
    return [scale, optax.add_decayed_weights(decay, mask=_kernels)]


def _kernels(params: optax.Params) -> optax.Params:
    return jax.tree.map(lambda param: param.ndim > 1, params)


def _follow_rate(block: str) -> optax.GradientTransformationExtraArgs:
    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        del params
        rates = extra["rates"]
        scaled = jax.tree_util.tree_map_with_path(
            lambda where, update: -rates.get(where[0].key, rates[block]) * update, updates
        )
        return scaled, state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)
