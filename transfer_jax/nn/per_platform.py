"""Functions that a CPU and accelerators compute in different ways.

The choice falls when a function is lowered, not when it is traced, so compiling ahead of time for another
platform is not affected.
"""

import functools
from collections.abc import Callable, Hashable
from typing import Any

import jax
from jax import lax

Function = Callable[..., jax.Array]
"""Called with arrays, then with what is static."""
Gradients = Callable[..., tuple[jax.Array, ...]]
"""Called with the arrays of a function, the gradient of its result, and what is static."""


def by_platform(on_cpu: Function, elsewhere: Function, gradients_on_cpu: Gradients | None = None) -> Function:
    """The function that is `on_cpu` on a CPU and `elsewhere` anywhere else, forward and backward.

    Args:
        on_cpu: The function for CPUs.
        elsewhere: The same function for other platforms.
        gradients_on_cpu: Its gradients for CPUs; None for those of `on_cpu`.
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
    """The gradients of a function that jax can differentiate."""

    def gradients(*arguments: Any) -> tuple[jax.Array, ...]:
        *arrays, dy, static = arguments
        return jax.vjp(lambda *arrays: function(*arrays, static), *arrays)[1](dy)

    return gradients


def _dispatch(
    on_cpu: Callable[..., Any], elsewhere: Callable[..., Any], arrays: Any, static: Hashable
) -> Any:
    cpu, default = (lambda *arrays, f=f: f(*arrays, static) for f in (on_cpu, elsewhere))
    return lax.platform_dependent(*arrays, cpu=cpu, default=default)
