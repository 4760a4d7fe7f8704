"""L-BFGS for several independent problems at once, such as one for each fold of a cross-validation."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

_MEMORY = 10
"""Number of earlier steps that approximate the Hessian matrix."""
_SUFFICIENT, _SMALLEST_STEP = 1e-4, 1e-6
_ROUNDING = 1e-7
"""Relative increase of a value that counts as none, in float32."""


class Minimum(NamedTuple):
    """The end of a minimization.

    Attributes:
        point: The points, `(problems, size)`.
        value: The values, `(problems,)`.
        steps: Number of steps of the slowest problem.
    """

    point: jax.Array
    value: jax.Array
    steps: jax.Array


def minimize(
    values: Callable[[jax.Array], jax.Array], start: jax.Array, *, tolerance: float, max_steps: int
) -> Minimum:
    """Minimizes independent smooth convex functions by L-BFGS with a backtracking line search.

    One evaluation computes all problems, so that they share their matrix products. `optax.lbfgs` under
    `jax.vmap` takes a hundred times as long, because its line search ends with that of the slowest problem.

    Args:
        values: Function from points `(problems, size)` to values `(problems,)`; a value depends on the point
            of its own problem only.
        start: The first points.
        tolerance: Largest entry of a gradient at which a problem is solved.
        max_steps: Largest number of steps.
    """

    def value_and_grad(point: jax.Array) -> tuple[jax.Array, jax.Array]:
        value, pull = jax.vjp(values, point)
        return value, pull(jnp.ones_like(value))[0]

    def unfinished(carry: tuple) -> jax.Array:
        return (carry[-1] < max_steps) & (jnp.abs(carry[2]).max() > tolerance)

    def step(carry: tuple) -> tuple:
        point, value, grad, moves, changes, inverses, steps = carry
        active = jnp.abs(grad).max(-1) > tolerance
        direction = jnp.where(active[:, None], _direction(grad, moves, changes, inverses), 0)
        slope = _dot(grad, direction)

        def too_long(size: jax.Array, found: jax.Array) -> jax.Array:
            limit = value + _SUFFICIENT * size * slope + _ROUNDING * jnp.abs(value)
            return ~(found <= limit) & (size > _SMALLEST_STEP)  # A value that is NaN is too long as well.

        def shorten(search: tuple) -> tuple:
            size = jnp.where(too_long(search[0], search[1]), search[0] / 2, search[0])
            return (size, *value_and_grad(point + size[:, None] * direction))

        search = (jnp.ones(len(point)), *value_and_grad(point + direction))
        size, value, new_grad = jax.lax.while_loop(
            lambda search: too_long(search[0], search[1]).any(), shorten, search
        )
        move, change = size[:, None] * direction, new_grad - grad
        curvature = _dot(move, change)
        useful = active & (curvature > 0)
        inverse = 1 / jnp.where(useful, curvature, 1)
        moves, changes, inverses = (
            jnp.where(
                useful.reshape(1, -1, *[1] * (new.ndim - 1)), jnp.concatenate([new[None], old[:-1]]), old
            )
            for new, old in ((move, moves), (change, changes), (inverse, inverses))
        )
        return point + move, value, new_grad, moves, changes, inverses, steps + 1

    history = jnp.zeros((_MEMORY, *start.shape))
    inverses = jnp.zeros((_MEMORY, len(start)))
    first = (start, *value_and_grad(start), history, history, inverses, jnp.zeros((), jnp.int32))
    point, value, *_, steps = jax.lax.while_loop(unfinished, step, first)
    return Minimum(point, value, steps)


def _direction(grad: jax.Array, moves: jax.Array, changes: jax.Array, inverses: jax.Array) -> jax.Array:
    """Returns the descent direction by the two-loop recursion (Nocedal and Wright 2006, algorithm 7.4).

    Args:
        grad: The gradients `(problems, size)`.
        moves: The last steps `(memory, problems, size)`, newest first; zeros before the first ones.
        changes: The changes of the gradients in these steps.
        inverses: The inverse of the product of both, `(memory, problems)`.
    """

    def forward(rest: jax.Array, entry: tuple) -> tuple[jax.Array, jax.Array]:
        move, change, inverse = entry
        share = inverse * _dot(move, rest)
        return rest - share[:, None] * change, share

    def backward(rest: jax.Array, entry: tuple) -> tuple[jax.Array, None]:
        move, change, inverse, share = entry
        return rest + (share - inverse * _dot(change, rest))[:, None] * move, None

    rest, shares = jax.lax.scan(forward, grad, (moves, changes, inverses))
    known = inverses[0] > 0
    scale = jnp.where(known, inverses[0] * _dot(changes[0], changes[0]), 1)
    entries = (moves, changes, inverses, shares)
    rest, _ = jax.lax.scan(backward, rest / scale[:, None], entries, reverse=True)
    return -rest


def _dot(one: jax.Array, other: jax.Array) -> jax.Array:
    return (one * other).sum(-1)
