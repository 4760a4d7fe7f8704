"""Self-attention between all tokens, and its positions: rotary embeddings and relative position biases.

Sources: Vaswani et al. 2017, arXiv:1706.03762; Su et al. 2021, arXiv:2104.09864 (rotary embeddings), in two
dimensions as in Fang et al. 2023, arXiv:2303.11331 (EVA-02), and Siméoni et al. 2025, arXiv:2508.10104
(DINOv3); Bao et al. 2021, arXiv:2106.08254 (relative position biases with a class token, BEiT).
"""

import dataclasses
import math
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from transfer_jax.nn import batch_shard
from transfer_jax.nn.attention import attend, attend_packed
from transfer_jax.nn.initializers import normal, zeros
from transfer_jax.nn.layers import LayerNorm, Linear
from transfer_jax.nn.rotation import Rotation

Bias = Literal["qkv", "qv", ""]
"""The inputs of an attention that have a bias: queries, keys and values; queries and values; or none."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rope:
    """Rotary position embeddings of queries and keys on a square grid of patches.

    The channels of a head are pairs. Each pair is rotated by its frequency times a coordinate of the patch:
    one half of the pairs by the row, the other half by the column. Tokens before the patches are not rotated.

    Attributes:
        base: Base of the frequencies `base ** -(k / n)` for `k` in `0 … n - 1`.
        grid: Side of the grid, in patches, that coordinates are scaled to; 0 for coordinates of -2π … 2π,
            from one edge of the image to the other.
        offset: Value added to coordinates before they are scaled, in patches.
        columns_first: Whether the first half of the pairs is rotated by the column, not by the row.
        halves: Whether a pair consists of a channel of the first half of the channels and one of the second;
            otherwise its channels are neighbors.
    """

    base: float = 10000.0
    grid: int = 0
    offset: float = 0.0
    columns_first: bool = False
    halves: bool = False

    def rotation(self, tokens: int, before: int, channels: int) -> Rotation:
        """Returns the rotation of heads of some channels; `before` tokens precede the patches."""
        sin, cos = self._tables(tokens, before, channels // 4)
        return Rotation(sin, cos, self.halves)

    def _tables(self, tokens: int, before: int, frequencies: int) -> list[jax.Array]:
        """Returns the sine and the cosine of all angles, each `(tokens, 2 x frequencies)`."""
        side = math.isqrt(tokens - before)
        position = np.arange(side, dtype=np.float32)
        if self.grid:
            position = (position + np.float32(self.offset)) / np.float32(side) * np.float32(self.grid)
        else:
            position = 2 * np.pi * (2 * (position + np.float32(0.5)) / np.float32(side) - 1)
        angles = np.outer(position, self.base ** -(np.arange(frequencies) / frequencies))
        found = []
        for values, fixed in ((np.sin(angles), 0.0), (np.cos(angles), 1.0)):
            line = jnp.asarray(values, jnp.float32)
            axes = (line, line[:, None]) if self.columns_first else (line[:, None], line)
            table = jnp.concatenate([jnp.broadcast_to(axis, (side, side, frequencies)) for axis in axes], -1)
            table = table.reshape(side * side, -1)
            found.append(jnp.pad(table, ((before, 0), (0, 0)), constant_values=fixed))
        return found


class Attention(nnx.Module):
    """Multi-head self-attention of `(batch, tokens, width)`, with one kernel for queries, keys and values.

    Args:
        width: Number of channels of a token.
        heads: Number of attention heads.
        rngs: Source of the initial parameters.
        bias: Inputs that have a bias.
        rope: Rotary position embeddings; None for none.
        before: Number of tokens before the patches, which rotary and relative positions need.
        grid: Side of the grid of patches for a learned bias for each pair of relative positions; 0 for no
            such bias. The class token must be the only token before the patches.
        use_bias: Whether the projection after the attention has a bias.
        norm: Epsilon of a normalization between the attention and the projection; 0 for no normalization.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        rngs: nnx.Rngs,
        *,
        bias: Bias = "qkv",
        rope: Rope | None = None,
        before: int = 0,
        grid: int = 0,
        use_bias: bool = True,
        norm: float = 0.0,
    ) -> None:
        self.qkv = Linear(width, 3 * width, use_bias=bias == "qkv", rngs=rngs)
        if bias == "qv":
            self.q_bias, self.v_bias = (nnx.Param(zeros(rngs.params(), (width,))) for _ in "qv")
        if grid:
            table = ((2 * grid - 1) ** 2 + 3, heads)
            self.relative_position_bias_table = nnx.Param(normal(0.02)(rngs.params(), table))
        if norm:
            self.norm = LayerNorm(width, epsilon=norm, rngs=rngs)
        self.proj = Linear(width, width, use_bias=use_bias, rngs=rngs)
        self.heads, self.rope, self.before, self.grid = heads, rope, before, grid
        self.has_norm, self.has_two_biases = bool(norm), bias == "qv"

    def __call__(self, x: jax.Array, bias: jax.Array | None = None) -> jax.Array:
        """Applies attention; `bias`, `(batch or 1, heads, tokens, tokens)`, is added before the softmax."""
        bias = self.relative_bias().astype(x.dtype) if self.grid else bias
        if bias is None and not batch_shard.shards_kernels():
            x = attend_packed(self.qkv.product(x), self.heads, self._bias(), self._rotation(x))
        else:
            x = attend(*self.inputs(x), bias).reshape(x.shape)
        return self.proj(self.norm(x) if self.has_norm else x)

    def inputs(self, x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Returns queries, keys and values, each `(batch, tokens, heads, width / heads)`."""
        batch, tokens, width = x.shape
        shape = (3, self.heads, width // self.heads)
        if batch_shard.shards_kernels():
            # The kernel is sharded by heads: each device then has the queries, keys and values of its heads.
            kernel = batch_shard.shard_kernel(self.qkv.kernel[...].reshape(width, *shape), 2)
            qkv = jnp.einsum("btw,wchd->btchd", x, kernel)
        else:
            qkv = self.qkv.product(x).reshape(batch, tokens, *shape)
        if (bias := self._bias()) is not None:
            qkv += bias.reshape(shape)
        query, key, value = qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]
        if (rotation := self._rotation(x)) is not None:
            query, key = rotation(query), rotation(key)
        return query, key, value

    def _rotation(self, x: jax.Array) -> Rotation | None:
        """Returns the rotation of the queries and keys of tokens `(batch, tokens, width)`."""
        if self.rope is None:
            return None
        return self.rope.rotation(x.shape[1], self.before, x.shape[2] // self.heads)

    def _bias(self) -> jax.Array | None:
        """Returns the biases of queries, keys and values, `(3 x width,)`; None for none."""
        if self.has_two_biases:
            query, value = self.q_bias[...], self.v_bias[...]
            return jnp.concatenate([query, jnp.zeros_like(query), value])
        return None if self.qkv.bias is None else self.qkv.bias[...]

    def relative_bias(self) -> jax.Array:
        """Returns the learned bias of each pair of tokens, `(1, heads, tokens, tokens)`."""
        count = 2 * self.grid - 1
        # NumPy's table would be a large constant in traced functions.
        grid = (self.grid, self.grid)
        row, column = (lax.broadcasted_iota(np.int32, grid, axis).reshape(-1) for axis in (0, 1))
        down, right = (at[:, None] - at[None] + self.grid - 1 for at in (row, column))
        index = jnp.pad(down * count + right, ((1, 0), (1, 0)))
        # The last three rows: from the class token, to the class token, and of the class token to itself.
        first = jnp.arange(self.grid**2 + 1) == 0
        index = jnp.where(first[:, None], count**2, jnp.where(first, count**2 + 1, index))
        index = jnp.where(first[:, None] & first, count**2 + 2, index)
        return self.relative_position_bias_table[...][index].transpose(2, 0, 1)[None]
