"""Multi-head self-attention of short sequences as a kernel of Pallas for TPUs, with its gradients.

A program of the kernel has some heads of one example: those whose channels fill whole tiles of 128 lanes, two
heads of 64 channels or eight of 80. It reads their queries, keys and values as columns of `(batch, tokens,
3 x width)`, as a matrix product gives them, so that no array per head reaches the memory. Logits and their
softmax are in float32 and stay on the chip. The backward pass computes them again, and also sums the
gradients of the biases.

Lanes of other heads are zeros in one operand of each product, which costs nothing: the matrix unit has 128
rows and columns. The softmax is a power of two, whose factor log2(e) is a part of the scale of the queries.
Rotary embeddings rotate the lanes of queries and keys after they are read, and those of their gradients back.
The method is the tiling of Dao et al. 2022 (arXiv:2205.14135) with all keys in one tile.
"""

import dataclasses
import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

_LANES = 128
_TILE = 256
"""Number of queries that are computed together where there are more than `_WHOLE`."""
_FEW = 32
_WHOLE = _TILE + _FEW
_MAX_TOKENS = 1100
_MIN_TOKENS = 96
"""Smallest number of tokens: programs for fewer tokens take less time than starting them."""
_MEMORY = 14 * 2**20
"""Bytes of on-chip memory for a program, of the 16 MiB that kernels may use by default."""
_LOG2E = math.log2(math.e)
_PLAIN = (((1,), (0,)), ((), ()))
_OF_ROWS = (((1,), (1,)), ((), ()))
_OF_COLUMNS = (((0,), (0,)), ((), ()))


@dataclasses.dataclass(frozen=True)
class Sizes:
    """The sizes of an attention, and of the programs of its kernel.

    Attributes:
        batch: Number of examples.
        tokens: Number of tokens.
        heads: Number of heads.
        channels: Number of channels of a head.
        distance: Channels from the first one of a rotated pair to the second one; 0 without a rotation.
    """

    batch: int
    tokens: int
    heads: int
    channels: int
    distance: int = 0

    @property
    def width(self) -> int:
        """The number of channels of all heads."""
        return self.heads * self.channels

    @property
    def lanes(self) -> int:
        """The number of channels of a program: whole heads and whole tiles."""
        return math.lcm(self.channels, _LANES)

    @property
    def programs(self) -> int:
        """The number of programs for an example."""
        return self.width // self.lanes

    @property
    def tile(self) -> int:
        """The number of queries that are computed together."""
        return self.tokens if self.tokens <= _WHOLE else _TILE

    @property
    def fits(self) -> bool:
        """True if the kernel applies, and its backward pass has enough on-chip memory."""
        if not isinstance(self.batch, int):  # a symbol
            return False
        if self.distance and self.lanes != _LANES:
            return False
        if self.width % self.lanes or not _MIN_TOKENS <= self.tokens <= _MAX_TOKENS:
            return False
        block = -(-self.tokens // 16) * 16 * self.lanes
        # In bfloat16, twice: queries, keys, values, the gradient and that of an input. Then those of keys and
        # values, waiting; copies of the inputs and the sums in float32; and four matrices of a head.
        blocks = 2 * 2 * 5 * block + 2 * 2 * block + 4 * 7 * block + (4 * 4 * block if self.distance else 0)
        columns = -(-min(self.tokens, _WHOLE) // _LANES) * _LANES
        return blocks + 4 * 4 * self.tokens * columns <= _MEMORY

    def cost(self, products: int, arrays: int) -> pl.CostEstimate:
        """Returns the cost of all programs.

        Args:
            products: Number of matrix products for each head.
            arrays: Number of arrays `(batch, tokens, width)` that are read or written.
        """
        logits = self.batch * self.heads * self.tokens**2
        return pl.CostEstimate(
            flops=2 * products * logits * self.channels,
            transcendentals=logits,
            bytes_accessed=2 * arrays * self.batch * self.tokens * self.width,
        )


def forward(
    sizes: Sizes,
    inputs: Sequence[jax.Array],
    bias: jax.Array | None,
    table: jax.Array | None = None,
    *,
    interpret: bool = False,
) -> jax.Array:
    """Returns the attention, `(batch, tokens, width)`.

    Args:
        sizes: The sizes, which must fit.
        inputs: The array `(batch, tokens, 3 x width)` of queries, keys and values, or one array for each.
        bias: Biases of queries, keys and values, `(3 x width,)`; None for none.
        table: `Rotation.table` for the lanes of a program; None without a rotation.
        interpret: Whether to compute without a TPU.
    """
    block = (1, sizes.tokens, sizes.lanes)
    arrays, offsets = _columns(sizes, inputs)
    in_specs = [pl.BlockSpec(block, lambda h, b, offset=offset: (b, 0, h + offset)) for offset in offsets]
    if bias is not None:
        arrays.append(bias.reshape(3, 1, sizes.width))
        in_specs.append(pl.BlockSpec((3, 1, sizes.lanes), lambda h, b: (0, 0, h)))
    if table is not None:
        arrays.append(table)
        in_specs.append(pl.BlockSpec(table.shape, lambda h, b: (0, 0, 0)))
    shape = jax.ShapeDtypeStruct((sizes.batch, sizes.tokens, sizes.width), arrays[0].dtype)
    return pl.pallas_call(
        functools.partial(_forward_kernel, sizes, bias is not None),
        grid=(sizes.programs, sizes.batch),
        in_specs=in_specs,
        out_specs=pl.BlockSpec(block, lambda h, b: (b, 0, h)),
        out_shape=shape,
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "parallel")),
        cost_estimate=sizes.cost(products=2, arrays=4),
        interpret=interpret,
        name="attention",
    )(*arrays)


def backward(
    sizes: Sizes,
    inputs: Sequence[jax.Array],
    bias: jax.Array | None,
    gradient: jax.Array,
    table: jax.Array | None = None,
    *,
    interpret: bool = False,
) -> tuple[list[jax.Array], jax.Array | None]:
    """Returns the gradients of the inputs, with their shapes, and the gradient of the bias.

    Args:
        sizes: As for `forward`.
        inputs: As for `forward`.
        bias: As for `forward`.
        gradient: Gradient of the attention, `(batch, tokens, width)`.
        table: As for `forward`.
        interpret: As for `forward`.
    """
    block = (1, sizes.tokens, sizes.lanes)
    arrays, offsets = _columns(sizes, inputs)
    in_specs = [
        pl.BlockSpec(block, lambda h, b, _, offset=offset: (b, 0, h + offset)) for offset in (*offsets, 0)
    ]
    arrays.append(gradient)
    # The third axis of the grid writes the gradients of queries, keys and values, one after the other.
    out_shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in inputs]
    if len(inputs) == 1:
        out_specs = [pl.BlockSpec(block, lambda h, b, i: (b, 0, h + i * sizes.programs))]
    else:
        out_specs = [pl.BlockSpec(block, lambda h, b, _: (b, 0, h)) for _ in inputs]
    if bias is not None:
        of_bias = pl.BlockSpec((3, 1, sizes.lanes), lambda h, b, _: (0, 0, h))
        arrays.append(bias.reshape(3, 1, sizes.width))
        in_specs.append(of_bias)
        out_shapes.append(jax.ShapeDtypeStruct((3, 1, sizes.width), jnp.float32))
        out_specs.append(of_bias)
    if table is not None:
        arrays.append(table)
        in_specs.append(pl.BlockSpec(table.shape, lambda h, b, _: (0, 0, 0)))
    kept = pltpu.VMEM((2, sizes.tokens, sizes.lanes), gradient.dtype)
    sums = pltpu.VMEM((2, sizes.tokens, sizes.lanes), jnp.float32)
    found = pl.pallas_call(
        functools.partial(_backward_kernel, sizes, len(inputs) == 1, bias is not None),
        grid=(sizes.programs, sizes.batch, 3 if len(inputs) == 1 else 1),
        in_specs=in_specs,
        out_specs=out_specs,
        out_shape=out_shapes,
        scratch_shapes=[*([kept] if len(inputs) == 1 else []), *([sums] if _is_tiled(sizes) else [])],
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "arbitrary", "arbitrary")),
        cost_estimate=sizes.cost(products=5, arrays=7),
        interpret=interpret,
        name="attention_backward",
    )(*arrays)
    if bias is None:
        return [*found], None
    *gradients, of_bias = found
    return gradients, of_bias.reshape(bias.shape).astype(bias.dtype)


def _columns(sizes: Sizes, inputs: Sequence[jax.Array]) -> tuple[list[jax.Array], tuple[int, ...]]:
    """Returns the arrays of queries, keys and values, and their first blocks."""
    if len(inputs) == 1:
        return [*inputs] * 3, (0, sizes.programs, 2 * sizes.programs)
    return [*inputs], (0, 0, 0)


def _is_tiled(sizes: Sizes) -> bool:
    return sizes.tile < sizes.tokens


def _forward_kernel(sizes: Sizes, has_bias: bool, *refs: Any) -> None:
    *ins, result = refs
    inputs = _Inputs(sizes, ins[:3], ins[3] if has_bias else None, ins[-1] if sizes.distance else None)
    key, value = inputs.read(1), inputs.read(2)

    def of_queries(start: Any, size: int) -> None:
        rows = pl.ds(start, size)
        query = inputs.read(0, rows, sizes.channels**-0.5 * _LOG2E)
        sums = _Sums()
        for head in _heads(sizes):
            logits = _dot(head.only(query), head.window(key), _OF_ROWS)
            weights = jnp.exp2(logits - logits.max(-1, keepdims=True))
            mixed = _dot(weights.astype(value.dtype), head.window(value))
            sums.add(head, head.cleared(mixed * (1 / weights.sum(-1, keepdims=True))))
        for lanes, x in sums:
            result[0, rows, lanes] = x.astype(result.dtype)

    _over_queries(sizes, of_queries)


def _backward_kernel(sizes: Sizes, packed: bool, has_bias: bool, *refs: Any) -> None:
    count = 4 + has_bias + bool(sizes.distance)
    ins, rest = refs[:count], refs[count:]
    count = (1 if packed else 3) + has_bias
    outs, scratch = rest[:count], rest[count:]
    bias, of_bias = (ins[4], outs[-1]) if has_bias else (None, None)
    inputs = _Inputs(sizes, ins[:3], bias, ins[-1] if sizes.distance else None)
    example, part = pl.program_id(1), pl.program_id(2)
    dq = outs[0].at[0]
    dk, dv = (scratch[0].at[0], scratch[0].at[1]) if packed else (outs[1].at[0], outs[2].at[0])

    @pl.when(part == 0)
    def _() -> None:
        if has_bias:

            @pl.when(example == 0)
            def _() -> None:
                outs[-1][...] = jnp.zeros_like(outs[-1])

        sums = scratch[-1] if _is_tiled(sizes) else None
        _gradients(sizes, inputs, ins[3], (dq, dk, dv), of_bias, sums)

    if packed:
        for index, kept in ((1, dk), (2, dv)):

            @pl.when(part == index)
            def _(kept: Any = kept) -> None:
                outs[0][0] = kept[...]


def _gradients(
    sizes: Sizes, inputs: "_Inputs", gradients: Any, outs: Sequence[Any], of_bias: Any, scratch: Any
) -> None:
    """Writes the gradients of queries, keys and values, and adds those of the biases.

    `scratch`, `(2, tokens, lanes)`, has the sums of keys and values over tiles of queries; None for one tile.
    """
    scale = sizes.channels**-0.5
    key, value = inputs.read(1), inputs.read(2)
    dtype = gradients.dtype

    def finish(index: int, lanes: slice, x: jax.Array, rows: Any = slice(None)) -> None:
        if index < 2:
            x = inputs.rotated_back(x, rows)
        outs[index][rows, lanes] = x.astype(dtype)
        if of_bias is not None:
            of_bias[index, :, lanes] += x.sum(0, keepdims=True)

    if scratch is not None:
        scratch[...] = jnp.zeros_like(scratch)

    def of_queries(start: Any, size: int) -> None:
        rows = pl.ds(start, size)
        query, gradient = inputs.read(0, rows, scale * _LOG2E), gradients[0, rows, :]
        dq, dk, dv = _Sums(), _Sums(), _Sums()
        for head in _heads(sizes):
            # The logits are transposed, `(keys, queries)`: sums over keys then are sums of whole tiles.
            q, g, k = head.only(query), head.only(gradient), head.window(key)
            logits = _dot(k, q, _OF_ROWS)
            weights = jnp.exp2(logits - logits.max(0, keepdims=True))
            weights = weights * (1 / weights.sum(0, keepdims=True))
            dv.add(head, _dot(weights.astype(dtype), g))
            of_weights = _dot(head.window(value), g, _OF_ROWS)
            inner = (weights * of_weights).sum(0, keepdims=True)
            of_logits = (weights * (of_weights - inner)).astype(dtype)
            dk.add(head, _dot(of_logits, q) * (1 / _LOG2E))
            dq.add(head, head.cleared(_dot(of_logits, k, _OF_COLUMNS) * scale))
        for lanes, x in dq:
            finish(0, lanes, x, rows)
        for index, sums in ((1, dk), (2, dv)):
            for lanes, x in sums:
                if scratch is None:
                    finish(index, lanes, x)
                else:
                    scratch[index - 1, :, lanes] += x

    _over_queries(sizes, of_queries)
    if scratch is not None:
        for index in (1, 2):
            finish(index, slice(None), scratch[index - 1])


def _over_queries(sizes: Sizes, of_queries: Any) -> None:
    """Calls a function with the first query and the static number of queries of each tile."""
    # The last tile may be smaller, or larger by a few queries.
    tile, count = sizes.tile, max((sizes.tokens + _TILE - _FEW - 1) // _TILE, 1)
    if count > 1:
        lax.fori_loop(0, count - 1, lambda i, _: of_queries(pl.multiple_of(i * tile, _LANES), tile), None)
    done = (count - 1) * tile
    of_queries(done, sizes.tokens - done)


@dataclasses.dataclass(frozen=True)
class _Inputs:
    """The queries, keys and values of a program.

    Attributes:
        sizes: The sizes.
        refs: Queries, keys and values, each `(1, tokens, lanes)`.
        bias: Their biases, `(3, 1, lanes)`; None for none.
        table: The factors of a rotation of queries and keys, `(2, tokens, lanes)`; None for none.
    """

    sizes: Sizes
    refs: Sequence[Any]
    bias: Any
    table: Any

    def read(self, index: int, rows: Any = slice(None), factor: float = 1.0) -> jax.Array:
        """Returns rows of an input, with its bias and rotation, times a factor; `(rows, lanes)`."""
        x = self.refs[index][0, rows, :]
        table = self.table if index < 2 else None
        if self.bias is None and factor == 1.0 and table is None:
            return x
        y = x.astype(jnp.float32)
        if self.bias is not None:
            y = y + self.bias[index].astype(jnp.float32)
        if table is not None:
            y = y * table[0, rows, :] + self._others(y) * table[1, rows, :]
        return (y if factor == 1.0 else y * factor).astype(x.dtype)

    def rotated_back(self, x: jax.Array, rows: Any) -> jax.Array:
        """Returns gradients of rows before the rotation, from those after it."""
        if self.table is None:
            return x
        return x * self.table[0, rows, :] + self._others(x * self.table[1, rows, :])

    def _others(self, x: jax.Array) -> jax.Array:
        """Returns the other channel of the pair of each channel."""
        distance, lanes = self.sizes.distance, x.shape[1]
        lane = lax.broadcasted_iota(jnp.int32, (1, lanes), 1)
        is_first = lane % (2 * distance) < distance
        return jnp.where(is_first, pltpu.roll(x, lanes - distance, 1), pltpu.roll(x, distance, 1))


def _dot(x: jax.Array, y: jax.Array, dimensions: Any = _PLAIN) -> jax.Array:
    return lax.dot_general(x, y, dimensions, preferred_element_type=jnp.float32)


@dataclasses.dataclass(frozen=True)
class _Head:
    """The lanes of a head in a program, and the whole tiles around them."""

    first: int
    last: int
    start: int
    stop: int

    def window(self, x: jax.Array) -> jax.Array:
        """Returns the tiles of the head, of all lanes `(rows, lanes)`."""
        return x[:, self.start : self.stop]

    def cleared(self, x: jax.Array) -> jax.Array:
        """Returns the tiles of the head with zeros in the lanes of other heads."""
        if (self.first, self.last) == (self.start, self.stop):
            return x
        lane = lax.broadcasted_iota(jnp.int32, (1, x.shape[-1]), 1) + self.start
        return jnp.where((lane >= self.first) & (lane < self.last), x, jnp.zeros((), x.dtype))

    def only(self, x: jax.Array) -> jax.Array:
        """Returns the tiles of the head, of all lanes, with zeros in the lanes of other heads."""
        return self.cleared(self.window(x))


def _heads(sizes: Sizes) -> Iterator[_Head]:
    for first in range(0, sizes.lanes, sizes.channels):
        last = first + sizes.channels
        yield _Head(first, last, first // _LANES * _LANES, -(-last // _LANES) * _LANES)


class _Sums:
    """Sums over heads of arrays `(rows, tiles of a head)`, by tile."""

    def __init__(self) -> None:
        self._tiles: dict[int, jax.Array] = {}

    def add(self, head: _Head, x: jax.Array) -> None:
        """Adds an array that is zero in the lanes of other heads."""
        for lane in range(head.start, head.stop, _LANES):
            tile = x[:, lane - head.start : lane - head.start + _LANES]
            self._tiles[lane] = self._tiles[lane] + tile if lane in self._tiles else tile

    def __iter__(self) -> Iterator[tuple[slice, jax.Array]]:
        for lane, tile in self._tiles.items():
            yield slice(lane, lane + _LANES), tile
