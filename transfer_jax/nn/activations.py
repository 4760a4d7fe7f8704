"""Activation functions that compute in at least float32 and round the result once.

In half precision, XLA on a CPU rounds after every operation, which takes twice as long and is less exact. All
functions apply to arrays of any shape and return the dtype of their input. For the backward pass they keep
their input only, and compute their slope from it.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

Activation = Callable[[jax.Array], jax.Array]


def _with_slope(slope: Activation) -> Callable[[Activation], Activation]:
    """Returns a decorator for an activation, which computes in float32.

    Args:
        slope: Its derivative. It takes its functions at `-x`, not at `x`: XLA would merge those of `x` with
            the ones of the forward pass, and keep them.
    """

    def wide(x: jax.Array) -> jax.Array:
        return x.astype(jnp.promote_types(x.dtype, jnp.float32))

    def decorate(activation: Activation) -> Activation:
        @jax.custom_vjp
        def rounded(x: jax.Array) -> jax.Array:
            return activation(wide(x)).astype(x.dtype)

        def fwd(x: jax.Array) -> tuple[jax.Array, jax.Array]:
            return rounded(x), x

        def bwd(x: jax.Array, gradient: jax.Array) -> tuple[jax.Array]:
            def apart(x: jax.Array, gradient: jax.Array) -> jax.Array:
                x, gradient = lax.optimization_barrier((x, gradient))
                return (wide(gradient) * slope(wide(x))).astype(x.dtype)

            def in_product(x: jax.Array, gradient: jax.Array) -> jax.Array:
                # XLA computes this with the matrix product before it if it does not with the sums behind it.
                return lax.optimization_barrier((wide(gradient) * slope(wide(x))).astype(x.dtype))

            if x.dtype != jnp.bfloat16:
                return (apart(x, gradient),)
            return (lax.platform_dependent(x, gradient, tpu=in_product, default=apart),)

        rounded.defvjp(fwd, bwd)
        return functools.wraps(activation)(lambda x: rounded(x))

    return decorate


def _gelu_slope(x: jax.Array) -> jax.Array:
    below = 0.5 * (1 - lax.erf(x * -math.sqrt(0.5)))
    return below + x * jnp.exp(-0.5 * x * x) * (1 / math.sqrt(2 * math.pi))


@_with_slope(_gelu_slope)
def gelu(x: jax.Array) -> jax.Array:
    """Applies the exact Gaussian error linear unit (Hendrycks and Gimpel 2016, arXiv:1606.08415)."""
    return 0.5 * x * (1 + lax.erf(x * math.sqrt(0.5)))


def _gelu_tanh_slope(x: jax.Array) -> jax.Array:
    factor, cubic = math.sqrt(2 / math.pi), 0.044715
    tanh = -jnp.tanh(x * (-factor - factor * cubic * x * x))
    return 0.5 * (1 + tanh + x * (1 - tanh * tanh) * factor * (1 + 3 * cubic * x * x))


@_with_slope(_gelu_tanh_slope)
def gelu_tanh(x: jax.Array) -> jax.Array:
    """Applies the Gaussian error linear unit in its approximation by a hyperbolic tangent."""
    return jax.nn.gelu(x, approximate=True)


def _quick_gelu_slope(x: jax.Array) -> jax.Array:
    above = jax.nn.sigmoid(-1.702 * x)
    return (1 - above) * (1 + 1.702 * x * above)


@_with_slope(_quick_gelu_slope)
def quick_gelu(x: jax.Array) -> jax.Array:
    """Applies the Gaussian error linear unit in its approximation by a sigmoid."""
    return x * jax.nn.sigmoid(1.702 * x)


def _silu_slope(x: jax.Array) -> jax.Array:
    above = jax.nn.sigmoid(-x)
    return (1 - above) * (1 + x * above)


@_with_slope(_silu_slope)
def silu(x: jax.Array) -> jax.Array:
    """Applies the sigmoid linear unit `x * sigmoid(x)`, also called swish."""
    return jax.nn.silu(x)


def _hard_swish_slope(x: jax.Array) -> jax.Array:
    return jnp.where(x <= -3, 0, jnp.where(x >= 3, 1, x / 3 + 0.5))


@_with_slope(_hard_swish_slope)
def hard_swish(x: jax.Array) -> jax.Array:
    """Applies the hard swish `x * relu6(x + 3) / 6` (Howard et al. 2019, arXiv:1905.02244)."""
    return jax.nn.hard_swish(x)
