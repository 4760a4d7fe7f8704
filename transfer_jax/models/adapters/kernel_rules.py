"""Adapters of kernels: LoRA, DoRA and IA3. Their rules change the weights that a layer computes with."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from transfer_jax.models.adapters.adapter import Dora, Ia3, Lora

_SIDE_BY_SIDE = {"qkv": "qkv"}
"""The kernels that lie side by side in a layer, by the name of the layer."""


class KernelRule(nnx.Module):
    """An adapter of a layer, which changes its kernel or its bias."""

    def kernel(self, kernel: jax.Array) -> jax.Array:
        """Returns the kernel that the layer computes with, for that of the layer."""
        return kernel

    def bias(self, bias: jax.Array) -> jax.Array:
        """Returns the bias that the layer computes with, for that of the layer."""
        return bias


class LoraRule(KernelRule):
    """The low-rank updates of a kernel.

    Args:
        adapter: The description.
        layer: Name of the layer.
        kernel: The kernel `(…, outputs)`, or its shape.
        rng: Source of the initial values.

    Attributes:
        a: The first factors, `(parts, inputs, rank)`, uniform in +-1 / sqrt(inputs).
        b: The second factors, `(parts, rank, width)`, zeros.
    """

    def __init__(self, adapter: Lora, layer: str, kernel: Any, rng: np.random.Generator) -> None:
        inputs, outputs = _sides(kernel.shape)
        self.columns = columns_of(layer, outputs, adapter.parts)
        self.scale = adapter.alpha / adapter.rank
        count, limit = len(self.columns), inputs**-0.5
        a = rng.uniform(-limit, limit, (count, inputs, adapter.rank))
        self.a = nnx.Param(jnp.asarray(a, jnp.float32))
        self.b = nnx.Param(jnp.zeros((count, adapter.rank, self.columns[0][1]), jnp.float32))

    def kernel(self, kernel: jax.Array) -> jax.Array:
        matrix = kernel.reshape(-1, kernel.shape[-1]).astype(jnp.float32)
        for index, columns in enumerate(self.columns):
            matrix = _put(matrix, columns, self._updated(matrix, index))
        return matrix.reshape(kernel.shape).astype(kernel.dtype)

    def _updated(self, matrix: jax.Array, index: int) -> jax.Array:
        """Returns the updated columns of a part."""
        a, b = (x[...][index].astype(jnp.float32) for x in (self.a, self.b))
        return _columns(matrix, self.columns[index]) + self.scale * (a @ b)


class DoraRule(LoraRule):
    """The low-rank updates of a kernel's directions, and its lengths.

    Args:
        adapter: As for `LoraRule`.
        layer: As for `LoraRule`.
        kernel: As for `LoraRule`.
        rng: As for `LoraRule`.

    Attributes:
        m: The lengths, `(parts, width)`.
    """

    def __init__(self, adapter: Dora, layer: str, kernel: Any, rng: np.random.Generator) -> None:
        super().__init__(adapter, layer, kernel, rng)
        if isinstance(kernel, jax.ShapeDtypeStruct):
            lengths: Any = jax.ShapeDtypeStruct((len(self.columns), self.columns[0][1]), jnp.float32)
        else:
            matrix = kernel.reshape(-1, kernel.shape[-1]).astype(jnp.float32)
            lengths = jnp.stack([_lengths(_columns(matrix, columns)) for columns in self.columns])
        self.m = nnx.Param(lengths)

    def _updated(self, matrix: jax.Array, index: int) -> jax.Array:
        updated = super()._updated(matrix, index)
        lengths = jax.lax.stop_gradient(_lengths(updated))
        return updated * (self.m[...][index].astype(jnp.float32) / jnp.maximum(lengths, 1e-12))


class Ia3Rule(KernelRule):
    """The factors of a layer's inputs or outputs.

    Args:
        adapter: The description.
        layer: Name of the layer.
        kernel: The kernel `(…, outputs)`, or its shape.
        rng: Not used.

    Attributes:
        factors: The factors, `(parts, channels)`, ones.
    """

    def __init__(self, adapter: Ia3, layer: str, kernel: Any, rng: np.random.Generator) -> None:
        del adapter, rng
        self.of_inputs = layer == "fc2"
        self.columns = columns_of(layer, kernel.shape[-1], "kv")
        count = kernel.shape[-2] if self.of_inputs else self.columns[0][1]
        self.factors = nnx.Param(jnp.ones((1 if self.of_inputs else len(self.columns), count), jnp.float32))

    def kernel(self, kernel: jax.Array) -> jax.Array:
        if self.of_inputs:
            return kernel * self.factors[...][0].astype(kernel.dtype)[:, None]
        return self._scaled(kernel)

    def bias(self, bias: jax.Array) -> jax.Array:
        return bias if self.of_inputs else self._scaled(bias)

    def _scaled(self, x: jax.Array) -> jax.Array:
        for index, columns in enumerate(self.columns):
            x = _put(x, columns, _columns(x, columns) * self.factors[...][index].astype(x.dtype))
        return x


def columns_of(layer: str, outputs: int, parts: str) -> tuple[tuple[int, int], ...]:
    """Returns the first column and the number of columns of each adapted part of a kernel.

    Args:
        layer: Name of the layer.
        outputs: Number of outputs of the kernel.
        parts: The parts of kernels side by side, by their first letters; "" for the kernel as a whole.
    """
    names = _SIDE_BY_SIDE.get(layer.rpartition(".")[2], "")
    if not (names and parts) or outputs % len(names):
        return ((0, outputs),)
    width = outputs // len(names)
    return tuple((names.index(part) * width, width) for part in parts)


def _sides(shape: tuple[int, ...]) -> tuple[int, int]:
    """Returns the numbers of inputs and outputs of a kernel as a matrix."""
    return int(np.prod(shape[:-1])), shape[-1]


def _columns(x: jax.Array, columns: tuple[int, int]) -> jax.Array:
    start, width = columns
    return x[..., start : start + width]


def _put(x: jax.Array, columns: tuple[int, int], values: jax.Array) -> jax.Array:
    """Returns an array with other values in some columns."""
    start, width = columns
    return values if width == x.shape[-1] else x.at[..., start : start + width].set(values)


def _lengths(matrix: jax.Array) -> jax.Array:
    """Returns the norm of each column."""
    return jnp.linalg.norm(matrix, axis=0)
