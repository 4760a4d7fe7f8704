"""Convolutions and linear layers whose kernels and inputs are 8-bit integers, for parts that are frozen.

The sums are 32-bit integers, and the output has the dtype of the input. A kernel has a scale for each output
channel. The input has a scale and an offset for each input channel, from the ranges that `observe` saw. A
channel with a large range would need large weights in turn: as in SmoothQuant (Xiao et al. 2022,
arXiv:2211.10438), the square root of the range goes to the kernel. The mean error of the rounded weights is
subtracted from the output, as in Nagel et al. 2019, arXiv:1906.04721.
"""

import contextlib
import contextvars
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from transfer_jax.nn.conv import conv2d


class Inputs(NamedTuple):
    """Statistics of the inputs of a layer.

    Attributes:
        low: The smallest value of each channel, `(channels,)`.
        high: The largest value of each channel.
        total: The sum of the values of each channel.
        values: Number of values of a channel.
    """

    low: jax.Array
    high: jax.Array
    total: jax.Array
    values: jax.Array

    @classmethod
    def of(cls, x: jax.Array) -> "Inputs":
        """Returns the statistics of `(…, channels)`."""
        axes = tuple(range(x.ndim - 1))
        x = x.astype(jnp.float32)
        values = jnp.asarray(x.size / x.shape[-1], jnp.float32)
        return cls(x.min(axes), x.max(axes), x.sum(axes), values)

    def joined(self, other: "Inputs") -> "Inputs":
        """Returns the statistics of these and of other inputs."""
        low, high = jnp.minimum(self.low, other.low), jnp.maximum(self.high, other.high)
        return Inputs(low, high, self.total + other.total, self.values + other.values)


_LEVELS = 127
_LEAST_CHANNELS = 16
"""Layers on fewer channels stay as they are: the first one of a network, on the colours of an image."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Int8Kernel:
    """A kernel in int8, in the place of an array among the arrays of a model.

    Attributes:
        values: The kernel, int8, `(…, in channels, out channels)`.
        scale: Factor of the sums for each output channel, `(out channels,)`.
        shift: Addend of the output for each output channel, which undoes the offsets of the input.
        factor: Factor of the input for each input channel, `(in channels,)`, before it is rounded.
        offset: Integers, as floats, that are added to the input for each input channel, `(in channels,)`.
    """

    values: jax.Array
    scale: jax.Array
    shift: jax.Array
    factor: jax.Array
    offset: jax.Array

    @property
    def shape(self) -> tuple[int, ...]:
        """Empty: arrays are sharded by their shape, and a kernel in int8 is whole on each device."""
        return ()

    @property
    def dtype(self) -> jnp.dtype:
        """The dtype of the kernel, int8."""
        return self.values.dtype

    def __getitem__(self, index: Any) -> "Int8Kernel":
        if index is not ...:
            raise TypeError("a kernel in int8 has no parts; it is used as a whole")
        return self

    def astype(self, dtype: jax.typing.DTypeLike) -> "Int8Kernel":
        """Returns the kernel as it is, whatever the dtype of the other arrays."""
        del dtype
        return self

    def product(self, x: jax.Array) -> jax.Array:
        """Returns the product of `(…, in channels)` with the kernel, `(…, out channels)`."""
        last = (((x.ndim - 1,), (0,)), ((), ()))

        def integers(x: jax.Array, values: jax.Array) -> jax.Array:
            found = lax.dot_general(x.astype(jnp.int8), values, last, preferred_element_type=jnp.int32)
            return found.astype(jnp.float32)

        def floats(x: jax.Array, values: jax.Array) -> jax.Array:
            return lax.dot_general(x, values.astype(jnp.float32), last)

        return self._output(self._sums(x, floats, integers)).astype(x.dtype)

    def convolve(
        self,
        x: jax.Array,
        *,
        strides: int,
        padding: str | Sequence[tuple[int, int]],
        gain: jax.Array | None = None,
    ) -> jax.Array:
        """Returns the convolution of images; see `conv2d`.

        Args:
            x: Images `(batch, height, width, in channels)`.
            strides: As for `conv2d`.
            padding: As for `conv2d`.
            gain: Factor of each output channel; None for no factor.
        """
        if isinstance(padding, str):
            padding = lax.padtype_to_pads(x.shape[1:3], self.values.shape[:2], (strides, strides), padding)
        # Zeros are padded before the offsets are added.
        padded = jnp.pad(x, ((0, 0), *((int(a), int(b)) for a, b in padding), (0, 0)))
        if self.values.shape[:2] == (1, 1):
            step = padded[:, ::strides, ::strides]
            kernel = dataclasses.replace(self, values=self.values[0, 0])
            if gain is not None:
                kernel = dataclasses.replace(kernel, scale=self.scale * gain, shift=self.shift * gain)
            return kernel.product(step)

        def integers(x: jax.Array, values: jax.Array) -> jax.Array:
            found = lax.conv_general_dilated(
                x.astype(jnp.int8),
                values,
                (strides, strides),
                "VALID",
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
                preferred_element_type=jnp.int32,
            )
            return found.astype(jnp.float32)

        def floats(x: jax.Array, values: jax.Array) -> jax.Array:
            return conv2d(x, values.astype(jnp.float32), strides=strides, padding="VALID")

        return self._output(self._sums(padded, floats, integers), gain).astype(x.dtype)

    def _sums(self, x: jax.Array, floats: Any, integers: Any) -> jax.Array:
        """Returns the sums of products of integers; on a CPU floats hold the integers, which is faster."""
        rounded = jnp.round(x.astype(jnp.float32) * self.factor + self.offset)
        rounded = jnp.clip(rounded, -_LEVELS - 1, _LEVELS)
        return lax.platform_dependent(rounded, self.values, cpu=floats, default=integers)

    def _output(self, sums: jax.Array, gain: jax.Array | None = None) -> jax.Array:
        scale, shift = self.scale, self.shift
        return sums * scale + shift if gain is None else sums * (scale * gain) + shift * gain


def quantize(kernel: jax.Array, inputs: Inputs) -> Int8Kernel:
    """Returns a kernel in int8.

    Args:
        kernel: The kernel `(…, in channels, out channels)`.
        inputs: The statistics of the input of its layer.
    """
    kernel = kernel.astype(jnp.float32)
    tiny = jnp.finfo(jnp.float32).tiny
    low, high = inputs.low, inputs.high
    if kernel.ndim > 2:  # The padding of images is zeros.
        low, high = jnp.minimum(low, 0), jnp.maximum(high, 0)
    half = jnp.maximum((high - low) / 2, 1e-6 * jnp.maximum((high - low).max(), tiny))
    weights = jnp.abs(kernel).max(axis=(*range(kernel.ndim - 2), kernel.ndim - 1))
    weights = jnp.maximum(weights, 1e-6 * jnp.maximum(weights.max(), tiny))
    smooth = jnp.sqrt(half / weights)
    step = smooth * (half / smooth).max() / _LEVELS
    # Whole steps, so that a zero stays a zero.
    offset = -jnp.round((high + low) / 2 / step)
    scaled = kernel * step[:, None]
    scale = jnp.maximum(jnp.abs(scaled).max(axis=tuple(range(kernel.ndim - 1))), tiny) / _LEVELS
    values = jnp.round(scaled / scale)
    axes = tuple(range(kernel.ndim - 2))
    rounding = (values * scale / step[:, None] - kernel).sum(axes)
    shift = -(offset @ values.sum(axes)) * scale - (inputs.total / inputs.values) @ rounding
    return Int8Kernel(values.astype(jnp.int8), scale, shift, 1 / step, offset)


_seen: contextvars.ContextVar[dict[int, Inputs] | None] = contextvars.ContextVar("inputs", default=None)


@contextlib.contextmanager
def observed() -> Iterator[dict[int, Inputs]]:
    """Records the inputs of layers, by the `id` of the layer, inside the context.

    Layers that are applied inside of a loop or another transformation cannot record.
    """
    found: dict[int, Inputs] = {}
    token = _seen.set(found)
    try:
        yield found
    finally:
        _seen.reset(token)


def observe(layer: Any, x: jax.Array) -> None:
    """Records the input of a layer; outside of `observed` it does nothing."""
    found = _seen.get()
    if found is None or x.shape[-1] < _LEAST_CHANNELS:
        return
    seen = Inputs.of(x)
    found[id(layer)] = seen.joined(found[id(layer)]) if id(layer) in found else seen
