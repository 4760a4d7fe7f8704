"""A scan over equal blocks, which are then traced and compiled once.

The parameters of each block stay arrays of their own, with their own names. A step stacks those of a run of
equal blocks when it starts, and the gradients are taken apart again.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from transfer_jax.nn.layer_rngs import LayerRngs
from transfer_jax.nn.layers import Dropout

Run = Callable[[nnx.Module, Any, Any], Any]
"""A function `(block, x, rngs)` that runs a block."""


def equal_runs(blocks: Sequence[nnx.Module]) -> list[int]:
    """Returns the lengths of the runs of blocks that are equal but for their arrays and drop rates.

    Blocks in training mode and blocks in inference mode are in different runs.
    """
    forms = [_form(block) for block in blocks]
    starts = [i for i in range(len(forms)) if i == 0 or forms[i] != forms[i - 1]]
    return [stop - start for start, stop in itertools.pairwise([*starts, len(forms)])]


def scan_blocks(blocks: Sequence[nnx.Module], x: Any, rngs: nnx.Rngs | None, run: Run) -> Any:
    """Runs equal blocks one after the other under `jax.lax.scan`.

    Args:
        blocks: The blocks.
        x: Input of the first one.
        rngs: Source of dropout masks. The masks are those of a loop over the blocks.
        run: The function that runs a block.

    Returns:
        The output of the last block. Blocks whose output has another shape than their input run in a loop.
    """
    graphdef, _ = nnx.split(blocks[-1])  # The last one has the highest drop rate.
    leaves = [_leaves(block) for block in blocks]
    counter = _Counter()

    def once(leaves: Any, x: Any) -> Any:
        return run(_merge(graphdef, leaves), x, None if rngs is None else counter)

    if not _same_shapes(jax.eval_shape(once, leaves[-1], x), x):
        for block in blocks:
            x = run(block, x, rngs)
        return x
    items: list[Any] = [jax.tree.map(lambda *arrays: jnp.stack(arrays), *leaves)]
    key: Any = None
    if rngs is not None and counter.drawn:
        stream = rngs.dropout
        rates = [max(_rates(block)) for block in blocks]
        drawn = np.array([counter.drawn if rate else 0 for rate in rates], np.uint32)
        first = stream.count[...] + (np.cumsum(drawn) - drawn).astype(np.uint32)
        items += [first, jnp.asarray(rates, jnp.float32)]
        key = stream.key[...]
        stream.count[...] += np.uint32(drawn.sum())

    def body(x: Any, item: Any) -> Any:
        leaves, *random = item
        block = _merge(graphdef, leaves)
        x = run(block, x, LayerRngs(key, *random) if random else None)
        return x, _leaves(block, nnx.BatchStat)

    x, statistics = jax.lax.scan(body, x, tuple(items))
    for index, block in enumerate(blocks):
        own = jax.tree.map(lambda array, index=index: array[index], statistics)
        nnx.update(block, nnx.from_flat_state(own))
    return x


@jax.tree_util.register_pytree_node_class
class _Counter:
    """Counts the keys that a block draws. Functions that are traced count in the same object."""

    def __init__(self) -> None:
        self.drawn = 0

    def dropout(self) -> jax.Array:
        self.drawn += 1
        return jax.random.key(0)

    def tree_flatten(self) -> tuple[tuple[()], "_Counter"]:
        return (), self

    @classmethod
    def tree_unflatten(cls, counter: "_Counter", _: Any) -> "_Counter":
        return counter


def _form(block: nnx.Module) -> tuple[Any, Any]:
    """Returns the definition of a block without its drop rate, and the shapes of its arrays.

    The rate stays in the definition of a block with several active rates.
    """
    layers = _dropouts(block)
    rates = [layer.rate for layer in layers]
    try:
        if len(set(rates)) == 1:
            for layer in layers:
                layer.rate = 0.0
        graphdef = nnx.split(block)[0]
    finally:
        for layer, rate in zip(layers, rates, strict=True):
            layer.rate = rate
    shapes = {path: jax.tree.map(_shape, leaf) for path, leaf in _leaves(block).items()}
    return graphdef, shapes


def _dropouts(block: nnx.Module) -> list[Dropout]:
    return [module for _, module in nnx.iter_modules(block) if isinstance(module, Dropout)]


def _rates(block: nnx.Module) -> list[float]:
    return [float(layer.rate) for layer in _dropouts(block)]


def _leaves(block: nnx.Module, *kinds: type) -> dict[tuple, Any]:
    state: Any = nnx.state(block, *kinds)
    return {path: variable.get_value() for path, variable in nnx.to_flat_state(state)}


def _merge(graphdef: nnx.GraphDef, leaves: Any) -> nnx.Module:
    return nnx.merge(graphdef, nnx.from_flat_state(leaves), copy=True)


def _shape(x: Any) -> tuple[tuple[int, ...], Any]:
    return jnp.shape(x), jnp.result_type(x)


def _same_shapes(one: Any, other: Any) -> bool:
    return jax.tree.structure(one) == jax.tree.structure(other) and all(
        _shape(a) == _shape(b) for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    )
