"""Activation functions that compute in at least float32 and round the result once.

In half precision, XLA on a CPU rounds after every operation, which takes twice as long and is less exact. All
functions apply to arrays of any shape and return the dtype of their input.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

Activation = Callable[[jax.Array], jax.Array]


def _rounded_once(activation: Activation) -> Activation:
    @functools.wraps(activation)
    def rounded(x: jax.Array) -> jax.Array:
        return activation(x.astype(jnp.promote_types(x.dtype, jnp.float32))).astype(x.dtype)

    return rounded


@_rounded_once
def gelu(x: jax.Array) -> jax.Array:
    """Applies the exact Gaussian error linear unit (Hendrycks and Gimpel 2016, arXiv:1606.08415)."""
    return 0.5 * x * (1 + lax.erf(x * math.sqrt(0.5)))


@_rounded_once
def gelu_tanh(x: jax.Array) -> jax.Array:
    """Applies the Gaussian error linear unit in its approximation by a hyperbolic tangent."""
    return jax.nn.gelu(x, approximate=True)


@_rounded_once
def quick_gelu(x: jax.Array) -> jax.Array:
    """Applies the Gaussian error linear unit in its approximation by a sigmoid."""
    return x * jax.nn.sigmoid(1.702 * x)


@_rounded_once
def silu(x: jax.Array) -> jax.Array:
    """Applies the sigmoid linear unit `x * sigmoid(x)`, also called swish."""
    return jax.nn.silu(x)


@_rounded_once
def hard_swish(x: jax.Array) -> jax.Array:
    """Applies the hard swish `x * relu6(x + 3) / 6` (Howard et al. 2019, arXiv:1905.02244)."""
    return jax.nn.hard_swish(x)
