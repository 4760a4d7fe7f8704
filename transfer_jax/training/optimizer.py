"""The optimizer of a phase, made from its labels."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import optax

from transfer_jax.freezing.labels import multi_transform, trainable_blocks
from transfer_jax.freezing.schedule import Phase, depth_factors, rate_factor
from transfer_jax.models.functional import block_of

Rates = dict[str, jax.Array] | dict[str, np.float32]


def make_optimizer(phase: Phase, labels: Mapping[str, str]) -> optax.GradientTransformationExtraArgs:
    """One transformation a block that trains, joined by `optax.multi_transform`.

    The learning rates are not part of it: each call of `update` is given `rates`, from block to rate, so that
    changing them compiles nothing.

    Args:
        phase: Which optimizer, decay and clipping.
        labels: From path to `frozen` or the block.
    """
    blocks = {name: optax.chain(*_direction(phase), _follow_rate(name)) for name in trainable_blocks(labels)}
    joined = multi_transform(blocks, labels)
    if phase.clip_norm is None:
        return joined
    return optax.chain(optax.clip_by_global_norm(phase.clip_norm), joined)


def rates_at(phase: Phase, labels: Mapping[str, str], step: int, steps: int) -> Rates:
    """The learning rate of each block that trains, at a step: base x depth scale x time shape."""
    depth = depth_factors(phase, tuple(dict.fromkeys(map(block_of, labels))))
    rate = phase.learning_rate * rate_factor(phase, step, steps)
    return {name: np.float32(rate * depth[name]) for name in trainable_blocks(labels)}


def _direction(phase: Phase) -> list[optax.GradientTransformation]:
    match phase.optimizer:
        case "adamw":
            scale = optax.scale_by_adam(b1=phase.momentum)
        case "lion":
            scale = optax.scale_by_lion(b1=phase.momentum)
        case "rmsprop":
            scale = optax.scale_by_rms(decay=0.9, eps=1e-7, eps_in_sqrt=False)
        case _:
            scale = optax.trace(decay=phase.momentum)
    if phase.weight_decay == 0:
        return [scale]
    return [scale, optax.add_decayed_weights(phase.weight_decay, mask=_kernels)]


def _kernels(params: optax.Params) -> optax.Params:
    return jax.tree.map(lambda param: param.ndim > 1, params)


def _follow_rate(block: str) -> optax.GradientTransformationExtraArgs:
    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        del params
        return jax.tree.map(lambda update: -extra["rates"][block] * update, updates), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)
