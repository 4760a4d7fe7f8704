"""What changes while a phase trains, and nothing else."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from transfer_jax.models.flat_arrays import Arrays, block_of


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
        seed: Seed of what is random in the steps of this phase, uint32 `()`.
    """

    step: jax.Array
    trainable: Arrays
    stats: Arrays
    opt_state: Any
    ema: Arrays
    seed: jax.Array

    @classmethod
    def create(
        cls,
        trainable: Arrays,
        stats: Arrays,
        optimizer: optax.GradientTransformation,
        *,
        ema: bool,
        seed: int = 0,
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
            seed=jnp.asarray(seed, jnp.uint32),
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


_BLOCK = re.compile(r"^\.opt_state.*?inner_states\['([^']+)'\]")


def carry(earlier: TrainState, state: TrainState, *, moments: bool) -> TrainState:
    """A fresh state with what goes on from an earlier one of another structure.

    A block keeps its optimizer state, the counter of its steps included, if all of it that trains did so
    before; where more of it trains now it begins afresh, since moments of different age in one block would be
    corrected wrongly. Moving averages go on for every parameter that had one.

    Args:
        earlier: The state that ended.
        state: The state of what trains now, before its first step.
        moments: Whether optimizer states go on at all; only if the optimizer is the same.
    """
    before = named_leaves(earlier)
    old, new = _by_block(earlier), _by_block(state)
    going_on = {block for block, paths in new.items() if moments and paths <= old.get(block, frozenset())}

    def kept(name: str, leaf: jax.Array) -> jax.Array:
        found, block = before.get(name), _BLOCK.match(name)
        fits = found is not None and found.shape == leaf.shape and found.dtype == leaf.dtype
        goes_on = name.startswith(".ema") or (block is not None and block[1] in going_on)
        return found if found is not None and fits and goes_on else leaf

    leaves = {name: kept(name, leaf) for name, leaf in named_leaves(state).items()}
    return restore_leaves(state, leaves)


def _by_block(state: TrainState) -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for path in state.trainable:
        found.setdefault(block_of(path), set()).add(path)
    return {block: frozenset(paths) for block, paths in found.items()}
