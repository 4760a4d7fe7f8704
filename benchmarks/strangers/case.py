"""A function with a frozen part that knows nothing of this package."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax


class MissingError(Exception):
    """A package or a checkout that a stranger needs is missing; the message says which."""


@dataclasses.dataclass(frozen=True)
class Case:
    """A function to split.

    Attributes:
        trains: The trainable part, in words.
        function: `function(params, state, batch, key)`, which returns outputs, or `(outputs, new_state)`.
        params: The parameters.
        labels: Their labels.
        batch: A batch.
        block_bytes: Bytes per example at the boundary between blocks that a person would choose.
        state: The state; None if there is none.
        computed: Whether the function is small enough to be computed, too.
    """

    trains: str
    function: Callable[..., Any]
    params: Any
    labels: Any
    batch: Any
    block_bytes: int
    state: Any = None
    computed: bool = True


def random_like(tree: Any, seed: int = 0) -> Any:
    """Returns a tree with noise added to each array, so that none of them is zero or one everywhere."""
    leaves, structure = jax.tree.flatten(tree)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    noisy = [
        leaf + 0.02 * jax.random.normal(key, leaf.shape, leaf.dtype)
        for leaf, key in zip(leaves, keys, strict=True)
    ]
    return jax.tree.unflatten(structure, noisy)


def images(examples: int, size: int, channels_first: bool = False) -> jax.Array:
    """Returns random images."""
    shape = (examples, 3, size, size) if channels_first else (examples, size, size, 3)
    return jax.random.normal(jax.random.key(1), shape)
