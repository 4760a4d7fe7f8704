"""Functions with one implementation for CPUs and another one for accelerators.

The implementation is chosen when a function is lowered, not when it is traced. Compiling ahead of time for
another platform therefore gives the right one.
"""

import functools
from collections.abc import Callable, Hashable
from typing import Any

import jax
from jax import lax

Function = Callable[..., jax.Array]
"""A function of arrays and, as its last argument, of static data."""
Gradients = Callable[..., tuple[jax.Array, ...]]
"""A function of the arrays of a `Function`, the gradient of its result, and its static data."""


def by_platform(on_cpu: Function, elsewhere: Function, gradients_on_cpu: Gradients | None = None) -> Function:
    """Returns a function that runs `on_cpu` on CPUs and `elsewhere` on other platforms, with gradients.

    Args:
        on_cpu: Implementation for CPUs.
        elsewhere: Implementation for other platforms.
        gradients_on_cpu: Gradients for CPUs; None differentiates `on_cpu`.
    """
    backward_on_cpu = gradients_on_cpu or gradients_of(on_cpu)

    @functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
    def function(static: Hashable, *arrays: jax.Array) -> jax.Array:
        return _dispatch(on_cpu, elsewhere, arrays, static)

    def fwd(static: Hashable, *arrays: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        return function(static, *arrays), arrays

    def bwd(static: Hashable, arrays: tuple[jax.Array, ...], dy: jax.Array) -> tuple[jax.Array, ...]:
        return _dispatch(backward_on_cpu, gradients_of(elsewhere), (*arrays, dy), static)

    function.defvjp(fwd, bwd)
    return lambda *arguments: function(arguments[-1], *arguments[:-1])


def gradients_of(function: Function) -> Gradients:
    """Returns the gradients of a function that JAX can differentiate."""

    def gradients(*arguments: Any) -> tuple[jax.Array, ...]:
        *arrays, dy, static = arguments
        return jax.vjp(lambda *arrays: function(*arrays, static), *arrays)[1](dy)

    return gradients


def _dispatch(
    on_cpu: Callable[..., Any], elsewhere: Callable[..., Any], arrays: Any, static: Hashable
) -> Any:
    cpu, default = (lambda *arrays, f=f: f(*arrays, static) for f in (on_cpu, elsewhere))
    return lax.platform_dependent(*arrays, cpu=cpu, default=default)
