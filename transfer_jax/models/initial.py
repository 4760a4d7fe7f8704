"""The values that parameters begin with or, in an abstract model, only their shapes.

Tracing a large network for its shapes takes longer than reading its weights. So a layer asks here for its
arrays, and gets shapes if its source of random numbers is `Shapes`: nothing is traced.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx


class Shapes(nnx.Rngs):
    """Stands in for a source of random numbers; what is built with it has shapes for arrays."""

    def __init__(self) -> None:
        """Takes no seed."""

    def params(self) -> Any:
        """None in place of a key, which `or_shape` understands."""
        return None


def or_shape(init: nnx.Initializer) -> nnx.Initializer:
    """The initializer, which gives only the shape if the key is None."""

    def initial(key: Any, shape: Any, dtype: Any = jnp.float32, out_sharding: Any = None) -> Any:
        del out_sharding
        return jax.ShapeDtypeStruct(shape, dtype) if key is None else init(key, shape, dtype)

    return initial


def constant(value: float, features: int, rngs: nnx.Rngs) -> jax.Array:
    """An array `(features,)` of one value; `rngs` only says whether the shape will do."""
    unused: Any = None if isinstance(rngs, Shapes) else "key"
    return or_shape(nnx.initializers.constant(value))(unused, (features,), jnp.float32)


zeros, ones = or_shape(nnx.initializers.zeros_init()), or_shape(nnx.initializers.ones_init())


def normal(deviation: float) -> nnx.Initializer:
    """Draws from a normal distribution."""
    return or_shape(nnx.initializers.normal(deviation))
