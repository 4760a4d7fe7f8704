"""Activations, computed in float32 at least and rounded once.

In half precision XLA on a CPU rounds behind every operation, which takes twice as long and is less exact.
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
    """The Gaussian error linear unit, exactly (Hendrycks and Gimpel 2016, arXiv:1606.08415)."""
    return 0.5 * x * (1 + lax.erf(x * math.sqrt(0.5)))


@_rounded_once
def gelu_tanh(x: jax.Array) -> jax.Array:
    """The Gaussian error linear unit, approximated by a hyperbolic tangent."""
    return jax.nn.gelu(x, approximate=True)


@_rounded_once
def quick_gelu(x: jax.Array) -> jax.Array:
    """The Gaussian error linear unit, approximated by a sigmoid."""
    return x * jax.nn.sigmoid(1.702 * x)


@_rounded_once
def silu(x: jax.Array) -> jax.Array:
    """The sigmoid linear unit, `x * sigmoid(x)`, alias swish."""
    return jax.nn.silu(x)


@_rounded_once
def hard_swish(x: jax.Array) -> jax.Array:
    """The piecewise `x * relu6(x + 3) / 6` (Howard et al. 2019, arXiv:1905.02244)."""
    return jax.nn.hard_swish(x)
