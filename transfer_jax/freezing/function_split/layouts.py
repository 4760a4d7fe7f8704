"""Arrays with the examples on axis 0, as caches store them, from arrays with another layout and back."""

import jax
import jax.numpy as jnp

from transfer_jax.freezing.function_split.examples import PerExample


def examples_first(value: jax.Array, layout: PerExample, examples: int) -> jax.Array:
    """Returns an array with the examples on axis 0."""
    axis, shape = layout.axis, value.shape
    apart = value.reshape(*shape[:axis], layout.outer, examples, layout.inner, *shape[axis + 1 :])
    first = jnp.moveaxis(apart, axis + 1, 0)
    kept = [
        size
        for size, at in zip(first.shape[1:], range(1, first.ndim), strict=True)
        if not _is_unit(at, layout)
    ]
    return first.reshape(examples, *kept)


def _is_unit(position: int, layout: PerExample) -> bool:
    """Returns True if an axis, after the examples were moved to axis 0, is an added axis of size 1."""
    outer, inner = 1 + layout.axis, 2 + layout.axis
    return (position == outer and layout.outer == 1) or (position == inner and layout.inner == 1)


def examples_back(value: jax.Array, layout: PerExample, shape: tuple[int, ...]) -> jax.Array:
    """Returns an array in the shape that the program has. The inverse of `examples_first`."""
    axis, examples = layout.axis, value.shape[0]
    apart = value.reshape(examples, *shape[:axis], layout.outer, layout.inner, *shape[axis + 1 :])
    return jnp.moveaxis(apart, 0, axis + 1).reshape(shape)
