"""Initial values of parameters or, in an abstract model, their shapes only.

Tracing a large network for its shapes takes longer than reading its weights, and compiling the program that
draws its initial values takes longer than drawing them. Initializers therefore work without tracing or
compiling: with `NumpyRngs` they draw arrays with NumPy, with `ShapeRngs` they return shapes.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

_DEVIATION = 0.8796256610342398
"""The standard deviation of a normal distribution that is truncated at two standard deviations."""


class ShapeRngs(nnx.Rngs):
    """A source of shapes instead of random numbers, for abstract models."""

    def __init__(self) -> None:
        """Needs no seed."""

    def params(self) -> Any:
        """Returns None instead of a key; the initializers of this module then return shapes."""
        return None


class NumpyRngs(nnx.Rngs):
    """A source of random numbers for the initializers of this module.

    Args:
        *seed: One or more integers. The same integers give the same arrays.
    """

    def __init__(self, *seed: int) -> None:
        self._generator = np.random.default_rng(seed)

    def params(self) -> Any:
        """Returns the NumPy generator, which the initializers of this module use instead of a key."""
        return self._generator


def constant(value: float) -> nnx.Initializer:
    """Returns an initializer that fills an array with one value."""
    return _initializer(lambda source, shape: np.full(shape, value, np.float32))


def normal(deviation: float) -> nnx.Initializer:
    """Returns an initializer that draws from a normal distribution of mean 0.

    Args:
        deviation: Its standard deviation.
    """
    return _initializer(lambda source, shape: deviation * source.standard_normal(shape, np.float32))


def _truncated(axis: int, gain: float) -> nnx.Initializer:
    """Returns an initializer that draws from a truncated normal distribution of variance `gain / fan`.

    It is truncated at two standard deviations. The fan of a kernel `(…, inputs, outputs)` is its length along
    `axis` times its size in pixels.
    """

    def draw(source: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        found = source.standard_normal(shape, np.float32)
        while (far := np.abs(found) > 2).any():
            found[far] = source.standard_normal(int(far.sum()), np.float32)
        fan = shape[axis] * math.prod(shape[:-2])
        return found * np.float32(math.sqrt(gain / fan) / _DEVIATION)

    return _initializer(draw)


def _initializer(draw: Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]) -> nnx.Initializer:
    """Returns an NNX initializer, which is called with the source, the shape and the dtype of a parameter."""

    def initial(key: Any, shape: Any, dtype: Any = jnp.float32, out_sharding: Any = None) -> Any:
        del out_sharding
        return jax.ShapeDtypeStruct(shape, dtype) if key is None else jnp.asarray(draw(key, shape), dtype)

    return initial


zeros, ones = constant(0.0), constant(1.0)

fan_in = _truncated(-2, 1.0)
"""The initializer of linear layers. Source: LeCun et al. 1998, "Efficient BackProp"."""

fan_out = _truncated(-1, 2.0)
"""The initializer of convolutions. Source: He et al. 2015, arXiv:1502.01852."""
