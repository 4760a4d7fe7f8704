"""The values that parameters begin with or, in an abstract model, only their shapes.

Tracing a large network for its shapes takes longer than reading its weights, and compiling what would draw
its values longer than drawing them. So a layer asks a source for its arrays: `NumpyRngs` draws them with NumPy,
`ShapeRngs` gives only shapes, and nothing is traced or compiled.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

_DEVIATION = 0.8796256610342398
"""Standard deviation of a normal distribution that is cut off at two standard deviations."""


class ShapeRngs(nnx.Rngs):
    """Stands in for a source of random numbers; what is built with it has shapes for arrays."""

    def __init__(self) -> None:
        """Takes no seed."""

    def params(self) -> Any:
        """None in place of a key, which the initializers of this module understand."""
        return None


class NumpyRngs(nnx.Rngs):
    """A source of random numbers for the initializers of this module.

    Args:
        seed: One number or several; the same ones give the same arrays.
    """

    def __init__(self, *seed: int) -> None:
        self._generator = np.random.default_rng(seed)

    def params(self) -> Any:
        """The generator, in place of a key."""
        return self._generator


def constant(value: float) -> nnx.Initializer:
    """All of one value."""
    return _initializer(lambda source, shape: np.full(shape, value, np.float32))


def normal(deviation: float) -> nnx.Initializer:
    """Draws from a normal distribution."""
    return _initializer(lambda source, shape: deviation * source.standard_normal(shape, np.float32))


def _truncated(axis: int, gain: float) -> nnx.Initializer:
    """Draws from a normal distribution, cut off at two deviations, of the variance `gain / fan`.

    The fan of a kernel `(…, inputs, outputs)` is its length along an axis times its size in pixels.
    """

    def draw(source: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        found = source.standard_normal(shape, np.float32)
        while (far := np.abs(found) > 2).any():
            found[far] = source.standard_normal(int(far.sum()), np.float32)
        fan = shape[axis] * math.prod(shape[:-2])
        return found * np.float32(math.sqrt(gain / fan) / _DEVIATION)

    return _initializer(draw)


def _initializer(draw: Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]) -> nnx.Initializer:
    """What NNX calls with the source, the shape and the dtype of a parameter."""

    def initial(key: Any, shape: Any, dtype: Any = jnp.float32, out_sharding: Any = None) -> Any:
        del out_sharding
        return jax.ShapeDtypeStruct(shape, dtype) if key is None else jnp.asarray(draw(key, shape), dtype)

    return initial


zeros, ones = constant(0.0), constant(1.0)

fan_in = _truncated(-2, 1.0)
"""For linear maps. Source: LeCun et al. 1998, "Efficient BackProp"."""

fan_out = _truncated(-1, 2.0)
"""For convolutions. Source: He et al. 2015, arXiv:1502.01852."""
