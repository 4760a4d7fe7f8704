"""Adapters of blocks, prompts and perceptrons in parallel, which change the forward pass of a block."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from transfer_jax.models.adapters.adapter import Parallel, Prompts
from transfer_jax.models.attention import Attention


class BlockRule(nnx.Module):
    """An adapter of a block."""

    def before(self, x: jax.Array) -> jax.Array:
        """Returns the input of the block, for the output of the block before it."""
        return x

    def after(self, x: jax.Array) -> jax.Array:
        """Returns the output of the adapted block, for that of the block."""
        return x

    def beside(self, x: jax.Array) -> jax.Array | None:
        """Returns an addend of the perceptron's output, for its input; None for none."""
        del x
        return None


class PromptRule(BlockRule):
    """The prompts of a block.

    Args:
        adapter: The description.
        block: The block.
        position: Position of the block among the adapted ones.
        rng: Source of the initial values.

    Attributes:
        tokens: The prompts, `(1, tokens, width)`, uniform as in the published code for patches of 16 pixels.
            A block that gets those of the block before it has none.
    """

    def __init__(self, adapter: Prompts, block: Any, position: int, rng: np.random.Generator) -> None:
        attention = getattr(block, "attn", None)
        if type(attention) is not Attention or attention.rope is not None or attention.grid:
            raise ValueError(
                f"prompts need blocks of a transformer whose attention has no positions of its own, got "
                f"{type(block).__name__} with {type(attention).__name__}; use lora, dora, ia3 or parallel"
            )
        self.count = adapter.tokens
        self.inserts = adapter.deep or position == 0
        self.drops = adapter.deep or position == len(adapter.layers) - 1
        if self.inserts:
            width = vars(attention.qkv)["kernel"].get_value().shape[0]
            limit = (6 / (3 * 16**2 + width)) ** 0.5
            tokens = rng.uniform(-limit, limit, (1, self.count, width))
            self.tokens = nnx.Param(jnp.asarray(tokens, jnp.float32))

    def before(self, x: jax.Array) -> jax.Array:
        if not self.inserts:
            return x
        tokens = self.tokens[...].astype(x.dtype)
        return jnp.concatenate([x, jnp.broadcast_to(tokens, (x.shape[0], *tokens.shape[1:]))], axis=1)

    def after(self, x: jax.Array) -> jax.Array:
        return x[:, : -self.count] if self.drops else x


class ParallelRule(BlockRule):
    """The perceptron beside that of a block.

    Args:
        adapter: The description.
        block: The module that contains `fc1` and `fc2`.
        position: Not used.
        rng: Source of the initial values.

    Attributes:
        down: The first kernel, `(inputs, width)`, uniform as in the published code.
        down_bias: Its bias, `(width,)`, zeros.
        up: The second kernel, `(width, outputs)`, zeros.
        up_bias: Its bias, `(outputs,)`, zeros.
    """

    def __init__(self, adapter: Parallel, block: Any, position: int, rng: np.random.Generator) -> None:
        del position
        first, last = (vars(vars(block)[name])["kernel"].get_value().shape for name in ("fc1", "fc2"))
        inputs, outputs, limit = first[-2], last[-1], first[-2] ** -0.5
        self.scale = adapter.scale
        down = rng.uniform(-limit, limit, (inputs, adapter.width))
        self.down = nnx.Param(jnp.asarray(down, jnp.float32))
        self.down_bias = nnx.Param(jnp.zeros((adapter.width,), jnp.float32))
        self.up = nnx.Param(jnp.zeros((adapter.width, outputs), jnp.float32))
        self.up_bias = nnx.Param(jnp.zeros((outputs,), jnp.float32))

    def beside(self, x: jax.Array) -> jax.Array:
        down, down_bias, up, up_bias = (
            each[...].astype(x.dtype) for each in (self.down, self.down_bias, self.up, self.up_bias)
        )
        return self.scale * (jax.nn.relu(x @ down + down_bias) @ up + up_bias)
