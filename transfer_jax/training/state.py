"""The training state: everything that changes while a phase trains."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from transfer_jax.models.flat_arrays import Arrays
from transfer_jax.models.paths import block_of


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """The training state of a phase. Every leaf belongs to the trainable part.

    Attributes:
        step: Number of steps taken in this phase, int32 `()`.
        trainable: Trainable parameters by path.
        stats: Running statistics of trainable normalizations by path.
        opt_state: State of the optimizer.
        ema: Moving averages of `trainable` by path; empty without them.
        seed: Seed of the random numbers in the steps of this phase, uint32 `()`.
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
        """Returns the state before the first step.

        The arrays are copied, because a compiled step reuses the memory of its input state.

        Args:
            trainable: Trainable parameters by path.
            stats: Running statistics of trainable normalizations by path.
            optimizer: The optimizer.
            ema: Keeps moving averages of the parameters.
            seed: Seed of the random numbers.
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
        """Returns the parameters and statistics to evaluate with: moving averages where there are any."""
        return {**self.trainable, **self.ema, **self.stats}


def named_leaves(state: TrainState) -> Arrays:
    """Returns all arrays of a state by name, as a checkpoint stores them."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(state)
    return {jax.tree_util.keystr(path): leaf for path, leaf in leaves}


def restore_leaves(template: TrainState, leaves: Mapping[str, jax.Array]) -> TrainState:
    """Returns a state with the structure of `template` and the arrays that `named_leaves` returned."""
    paths, structure = jax.tree_util.tree_flatten_with_path(template)
    return jax.tree.unflatten(structure, [leaves[jax.tree_util.keystr(path)] for path, _ in paths])


_BLOCK = re.compile(r"^\.opt_state.*?inner_states\['([^']+)'\]")


def carry(earlier: TrainState, state: TrainState, *, moments: bool) -> TrainState:
    """Returns a fresh state with optimizer states and moving averages from an earlier one.

    A block keeps its optimizer state, including its step counter, if all of its trainable parameters were
    trainable before. A block with more trainable parameters than before starts with a fresh optimizer state,
    because the bias correction is wrong for moments of different age. Every parameter with a moving average
    keeps it.

    Args:
        earlier: The last state of the phase before.
        state: The fresh state, before its first step.
        moments: Keeps optimizer states; the optimizer must be the same.
    """
    before = named_leaves(earlier)
    old, new = _by_block(earlier), _by_block(state)
    kept_blocks = {block for block, paths in new.items() if moments and paths <= old.get(block, frozenset())}

    def carried(name: str, leaf: jax.Array) -> jax.Array:
        old_leaf, block = before.get(name), _BLOCK.match(name)
        keep = name.startswith(".ema") or (block is not None and block[1] in kept_blocks)
        if not keep or old_leaf is None or old_leaf.shape != leaf.shape or old_leaf.dtype != leaf.dtype:
            return leaf
        return old_leaf

    leaves = {name: carried(name, leaf) for name, leaf in named_leaves(state).items()}
    return restore_leaves(state, leaves)


def _by_block(state: TrainState) -> dict[str, frozenset[str]]:
    """Returns the trainable paths of each block."""
    blocks: dict[str, set[str]] = {}
    for path in state.trainable:
        blocks.setdefault(block_of(path), set()).add(path)
    return {block: frozenset(paths) for block, paths in blocks.items()}
