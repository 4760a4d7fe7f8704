"""Attention rollout: the contribution of each patch to the classifier's input, through all blocks.

Source: Abnar and Zuidema 2020, arXiv:2005.00928. The map is the same for all classes.
"""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from transfer_jax.models import Backbone
from transfer_jax.models.attention import Attention
from transfer_jax.models.flat_arrays import Arrays, merge
from transfer_jax.models.preprocessing import Preprocessing
from transfer_jax.models.siglip import AttentionPool
from transfer_jax.models.transformer import Embed, Shape, TransformerBlock

Rollout = Callable[[Arrays, jax.Array], jax.Array]
"""A function `(arrays, images) -> maps`; see `make_rollout`."""


def attention_weights(query: jax.Array, key: jax.Array, bias: jax.Array | float = 0.0) -> jax.Array:
    """Returns the attention of each query to each key, averaged over heads: `(batch, queries, keys)`.

    Args:
        query: `(batch, queries, heads, channels)`.
        key: `(batch, keys, heads, channels)`.
        bias: Value added before the softmax, `(1, heads, queries, keys)`.
    """
    logits = jnp.einsum("bqhc,bkhc->bhqk", query, key, precision="highest") / query.shape[-1] ** 0.5 + bias
    return jax.nn.softmax(logits.astype(jnp.float32), axis=-1).mean(1)


def rollout(attentions: Sequence[jax.Array]) -> jax.Array:
    """Returns the fraction of each input token in each output token, `(batch, output tokens, input tokens)`.

    Half of a block's output is its input, for the residual connection. The other half is the input mixed by
    the block's attention.

    Args:
        attentions: The attention of each block, averaged over heads, `(batch, tokens, tokens)`. The block
            next to the input comes first.
    """
    halves = [(weights + jnp.eye(weights.shape[-1])) / 2 for weights in attentions]
    return functools.reduce(lambda below, above: jnp.matmul(above, below, precision="highest"), halves)


def is_transformer(backbone: Backbone) -> bool:
    """Returns whether a network attends over all tokens, as ViT, DeiT, DINO, CLIP and SigLIP do."""
    return isinstance(getattr(backbone, "embed", None), Embed)


def make_rollout(graphdef: nnx.GraphDef, preprocessing: Preprocessing) -> Rollout:
    """Returns a pure function `(arrays, images) -> maps`.

    `images` are uint8 `(batch, size, size, 3)`. `maps` are `(batch, rows, columns)`: the fraction of each
    patch in the classifier's input, which is the class token, the mean of the patches, or the token that
    SigLIP pools with. They are scaled so that the smallest value is 0 and the largest is 1.

    Args:
        graphdef: Definition of the model, in inference mode. `is_transformer` must be True for its backbone.
        preprocessing: Preprocessing of the weights.
    """

    def maps(arrays: Arrays, images: jax.Array) -> jax.Array:
        backbone = merge(graphdef, arrays).backbone
        x = preprocessing.normalize(images)
        shape: Shape = getattr(backbone, "embed").shape  # noqa: B009
        attentions, reads = [], None
        for name in backbone.block_names:
            block = getattr(backbone, name)
            if isinstance(block, TransformerBlock):
                layer = block.attn
                assert isinstance(layer, Attention)
                query, key, _ = layer.inputs(block.norm1(x))
                bias = layer.relative_bias() if layer.grid else 0.0
                attentions.append(attention_weights(query, key, bias))
            elif isinstance(block, AttentionPool):
                query, key, _ = block.inputs(x)
                reads = attention_weights(query, key)[:, 0]
            x = block(x)
        seen = rollout(attentions)
        if reads is not None:
            row = jnp.einsum("bi,bij->bj", reads, seen, precision="highest")
        else:
            row = seen[:, 0] if shape.pool == "token" else seen[:, shape.before :].mean(1)
        side = images.shape[1] // shape.patch
        found = row[:, shape.before :].reshape(-1, side, side)
        found -= found.min((1, 2), keepdims=True)
        return found / jnp.maximum(found.max((1, 2), keepdims=True), 1e-12)

    return maps
