"""The training state: everything that changes while a phase trains."""

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """The training state of a phase. Every parameter in it belongs to the trainable part.

    Attributes:
        step: Number of steps taken in this phase, int32 `()`.
        trainable: The tree of the trainable parameters.
        model_state: State of the model, such as running statistics; None if it has none.
        opt_state: State of the optimizer.
        ema: Moving averages of `trainable`, a tree of the same structure; None without them.
        seed: Seed of the random numbers in the steps of this phase, uint32 `()`.
    """

    step: jax.Array
    trainable: Any
    model_state: Any
    opt_state: Any
    ema: Any
    seed: jax.Array

    @classmethod
    def create(
        cls,
        trainable: Any,
        optimizer: optax.GradientTransformation,
        model_state: Any = None,
        *,
        ema: bool = False,
        seed: int | jax.Array = 0,
    ) -> "TrainState":
        """Returns the state before the first step.

        The arrays are copied, because a compiled step may reuse the memory of its input state.

        Example:
            >>> trainable, frozen = partition(params, labels)
            >>> state = TrainState.create(trainable, optax.adam(1e-3), model_state)

        Args:
            trainable: The trainable parameters: any tree, such as the first part that `partition` returns.
            optimizer: The optimizer.
            model_state: State of the model, such as running statistics; None if it has none.
            ema: Keeps moving averages of the parameters.
            seed: Seed of the random numbers.
        """
        return cls(
            step=jnp.zeros((), jnp.int32),
            trainable=jax.tree.map(jnp.copy, trainable),
            model_state=jax.tree.map(jnp.copy, model_state),
            opt_state=_without_shared(optimizer.init(trainable), jax.tree.leaves(trainable)),
            ema=jax.tree.map(jnp.copy, trainable) if ema else None,
            seed=jnp.asarray(seed, jnp.uint32),
        )

    def averaged(self) -> Any:
        """Returns the trainable parameters to evaluate with: moving averages where there are any."""
        return self.trainable if self.ema is None else self.ema


def _without_shared(tree: Any, others: list[Any]) -> Any:
    """Returns a tree with copies of arrays that it has twice, or that are among others.

    Some optimizers keep the first parameters, such as `optax.contrib.prodigy`.
    """
    seen = {id(leaf) for leaf in others}

    def own(leaf: Any) -> Any:
        shared = id(leaf) in seen
        seen.add(id(leaf))
        return jnp.copy(leaf) if shared else leaf

    return jax.tree.map(own, tree)


def named_leaves(state: TrainState) -> dict[str, jax.Array]:
    """Returns the arrays of a state by name, as a checkpoint stores them: those with elements."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(state)
    stored = {_name(keys): leaf for keys, leaf in leaves if leaf.size}
    return {name: jax.random.key_data(leaf) if _is_key(leaf) else leaf for name, leaf in stored.items()}


def restore_leaves(template: TrainState, leaves: Mapping[str, jax.Array]) -> TrainState:
    """Returns a state with the structure of `template` and the arrays that `named_leaves` returned."""
    paths, structure = jax.tree_util.tree_flatten_with_path(template)

    def restored(name: str, old: jax.Array) -> jax.Array:
        if not old.size:
            return old
        return (
            jax.random.wrap_key_data(leaves[name], impl=jax.random.key_impl(old))
            if _is_key(old)
            else leaves[name]
        )

    return jax.tree.unflatten(structure, [restored(_name(keys), old) for keys, old in paths])


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _name(keys: tuple[Any, ...]) -> str:
    """Returns the name of an array in a checkpoint, where `model_state` has its former name `stats`."""
    name = jax.tree_util.keystr(keys)
    return name.replace(".model_state", ".stats", 1) if name.startswith(".model_state") else name


def carry(earlier: TrainState, state: TrainState, *, moments: bool = True) -> TrainState:
    """Returns a fresh state with moments and moving averages from an earlier one.

    A block keeps its moments, with the step counter of their bias correction, if all of its trainable
    parameters were trainable before. A block with more trainable parameters than before starts with fresh
    moments, because the bias correction is wrong for moments of different age. Blocks are the labels of an
    `optax.multi_transform`; all parameters of any other transformation are one block. Learning rates and
    counters of learning-rate schedules start again. Every parameter with a moving average keeps it.

    Args:
        earlier: The last state of the phase before.
        state: The fresh state, before its first step.
        moments: Keeps moments; the optimizer must be of the same kind.
    """
    before, now = _by_keys(earlier), _by_keys(state)
    parameters = {keys[1:] for keys in now if keys[0] == _TRAINABLE}
    found = {keys: _transformation(keys, parameters) for keys in now if keys[0] == _OPTIMIZER}
    with_moments = {owner for owner in found.values() if owner is not None}
    of_moments = {keys for keys in found if keys[:-1] in with_moments or found[keys] is not None}

    def same(keys: _Keys) -> bool:
        old, new = before.get(keys), now[keys]
        return old is not None and old.shape == new.shape and old.dtype == new.dtype

    fresh = {_block(keys) for keys in of_moments if not same(keys)}
    kept = {keys for keys in of_moments if moments and _block(keys) not in fresh}
    kept |= {keys for keys in now if keys[0] == _AVERAGES and same(keys)}
    leaves = [before[keys] if keys in kept else leaf for keys, leaf in now.items()]
    return jax.tree.unflatten(jax.tree.structure(state), leaves)


_Keys = tuple[Any, ...]
_TRAINABLE, _OPTIMIZER, _AVERAGES = map(jax.tree_util.GetAttrKey, ("trainable", "opt_state", "ema"))
_BLOCKS = jax.tree_util.GetAttrKey("inner_states")
"""The field of `optax.multi_transform`'s state with one state for each label."""


def _by_keys(state: TrainState) -> dict[_Keys, jax.Array]:
    return dict(jax.tree_util.tree_flatten_with_path(state)[0])


def _transformation(keys: _Keys, parameters: set[_Keys]) -> _Keys | None:
    """Returns the place of the transformation with this moment of a parameter; None for other arrays."""
    for first in range(2, len(keys) + 1):
        if keys[first:] in parameters:
            return keys[: first - 1]
    return None


def _block(keys: _Keys) -> Any:
    """Returns the label whose optimizer state an array is part of; None outside of a `multi_transform`."""
    after = [key for field, key in itertools.pairwise(keys) if field == _BLOCKS]
    return after[0] if after else None
