"""What changes while a phase trains, and nothing else."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from transfer_jax.models.functional import Arrays


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """The state of a phase; every leaf belongs to the trainable part.

    Attributes:
        step: Steps taken in this phase, int32 `()`.
        trainable: Parameters that train, by path.
        stats: Running statistics of normalizations that train, by path.
        opt_state: State of the optimizer.
        ema: Moving average of `trainable`; empty when off.
    """

    step: jax.Array
    trainable: Arrays
    stats: Arrays
    opt_state: Any
    ema: Arrays

    @classmethod
    def create(
        cls, trainable: Arrays, stats: Arrays, optimizer: optax.GradientTransformation, *, ema: bool
    ) -> "TrainState":
        """The state before the first step.

        The arrays are copied: a compiled step reuses the memory of the state that it is given.
        """
        return cls(
            step=jnp.zeros((), jnp.int32),
            trainable=jax.tree.map(jnp.copy, trainable),
            stats=jax.tree.map(jnp.copy, stats),
            opt_state=optimizer.init(trainable),
            ema=jax.tree.map(jnp.copy, trainable) if ema else {},
        )

    def evaluated(self) -> Arrays:
        """The parameters and statistics to evaluate with: the moving average where there is one."""
        return {**self.trainable, **self.ema, **self.stats}


def named_leaves(state: TrainState) -> Arrays:
    """All arrays of a state by name, as a checkpoint keeps them."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(state)
    return {jax.tree_util.keystr(path): leaf for path, leaf in leaves}


def restore_leaves(template: TrainState, leaves: Mapping[str, jax.Array]) -> TrainState:
    """A state of the structure of `template` with the arrays that `named_leaves` gave."""
    paths, structure = jax.tree_util.tree_flatten_with_path(template)
    return jax.tree.unflatten(structure, [leaves[jax.tree_util.keystr(path)] for path, _ in paths])
