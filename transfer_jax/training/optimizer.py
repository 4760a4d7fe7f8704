"""The optimizer of a phase, built from its labels."""

from collections.abc import Mapping
from typing import Any, cast

import jax
import jax.numpy as jnp
import optax

from transfer_jax.freezing.labels import multi_transform, trainable_blocks
from transfer_jax.freezing.phase import Phase
from transfer_jax.freezing.phase_optimizer import OPTIMIZERS, at_unit_rate
from transfer_jax.freezing.python_object import PythonObject
from transfer_jax.freezing.trees import FROZEN

_WHOLE = "*"
"""Label of all trainable parameters."""


def make_optimizer(
    phase: Phase, labels: Mapping[str, str], weight_decay: float | jax.Array | None = None
) -> optax.GradientTransformationExtraArgs:
    """Returns the optimizer of the trainable parameters of a phase.

    The learning rates are an argument of each `update` call, `rates`, so that other rates need no
    compilation. Without clipping the chain starts with the identity, so that the states of phases with and
    without clipping have the same structure.

    A named optimizer is one transformation for each trainable block, joined by `optax.multi_transform`. An
    object of the user's is one transformation of all trainable parameters, so that a norm in it is that of
    all of them; its updates are multiplied by the learning rates. Other arguments of `update`, such as
    `value`, reach it.

    Args:
        phase: The phase, for its optimizer, weight decay and clipping.
        labels: Maps each path to `frozen` or its block.
        weight_decay: Replaces the phase's weight decay; it may be traced. None uses that of the phase.

    Raises:
        MissingObjectError: If the optimizer is an object that is neither given nor importable.
        TypeError: If the optimizer is a function that returns no optimizer.
    """
    clip = optax.identity() if phase.clip_norm is None else _clip(phase.clip_norm)
    optimizer, blocks = phase.optimizer, trainable_blocks(labels)
    if isinstance(optimizer, PythonObject):
        whole = {path: label if label == FROZEN else _WHOLE for path, label in labels.items()}
        scaled = _times_rate(at_unit_rate(optimizer), labels)
        return optax.chain(clip, multi_transform({_WHOLE: scaled}, whole))
    if optimizer in OPTIMIZERS:
        decay = phase.weight_decay if weight_decay is None else weight_decay
        by_block = {name: optax.chain(*_direction(phase, decay), _follow_rate(name)) for name in blocks}
    else:
        by_block = dict.fromkeys(blocks, _times_rate(at_unit_rate(cast(str, optimizer)), labels))
    return optax.chain(clip, multi_transform(by_block, labels))


def _clip(limit: float) -> optax.GradientTransformation:
    """Returns a transformation that scales all gradients by one factor if their norm is above a limit.

    It equals `optax.clip_by_global_norm` without the division of every gradient, which XLA does not fuse with
    the next operations. It reads and writes less memory, by three times the size of the gradients.
    """

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        del params
        factor = jnp.minimum(1.0, limit / optax.tree.norm(updates))
        return jax.tree.map(lambda update: factor * update, updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def _direction(phase: Phase, decay: float | jax.Array) -> list[optax.GradientTransformation]:
    """Returns the transformations from gradients to updates, before the learning rate."""
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
    """Returns True for parameters with more than one axis, which weight decay applies to."""
    return jax.tree.map(lambda param: param.ndim > 1, params)


def _follow_rate(block: str) -> optax.GradientTransformationExtraArgs:
    """Returns a transformation that multiplies updates by minus the learning rate."""

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        del params
        rates = extra["rates"]
        scaled = jax.tree_util.tree_map_with_path(
            lambda where, update: -rates.get(where[0].key, rates[block]) * update, updates
        )
        return scaled, state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def _times_rate(
    inner: optax.GradientTransformationExtraArgs, labels: Mapping[str, str]
) -> optax.GradientTransformationExtraArgs:
    """Returns a transformation with the updates of another one, multiplied by the learning rates."""

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        rates = extra.pop("rates")
        updates, state = inner.update(updates, state, params, **extra)
        scaled = jax.tree_util.tree_map_with_path(
            lambda where, update: rates.get(where[0].key, rates[labels[where[0].key]]) * update, updates
        )
        return scaled, state

    return optax.GradientTransformationExtraArgs(inner.init, update)
