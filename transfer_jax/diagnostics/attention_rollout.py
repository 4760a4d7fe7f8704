"""What the classifier of a vision transformer sees of each patch, through all blocks of attention.

Source: attention rollout, Abnar and Zuidema 2020, arXiv:2005.00928. It is the same for all classes.
"""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from transfer_jax.models import Backbone
from transfer_jax.models.flat_arrays import Arrays, merge
from transfer_jax.models.preprocessing import Preprocessing
from transfer_jax.models.siglip import AttentionPool
from transfer_jax.models.transformer import Embed, Shape, TransformerBlock

Rollout = Callable[[Arrays, jax.Array], jax.Array]


def attention_weights(query: jax.Array, key: jax.Array) -> jax.Array:
    """How much each query looks at each key, the mean over heads: `(batch, queries, keys)`.

    Args:
        query: `(batch, queries, heads, channels)`.
        key: `(batch, keys, heads, channels)`.
    """
    logits = jnp.einsum("bqhc,bkhc->bhqk", query, key, precision="highest") / query.shape[-1] ** 0.5
    return jax.nn.softmax(logits.astype(jnp.float32), axis=-1).mean(1)


def rollout(attentions: Sequence[jax.Array]) -> jax.Array:
    """How much of each input token is in each output token, `(batch, tokens, tokens)`.

    A block passes a token on as it is in its one half, for the residual, and in its other half as its
    attention mixes them.

    Args:
        attentions: The mean attention of each block, input side first, `(batch, tokens, tokens)`.
    """
    halves = [(weights + jnp.eye(weights.shape[-1])) / 2 for weights in attentions]
    return functools.reduce(lambda below, above: jnp.matmul(above, below, precision="highest"), halves)


def is_transformer(backbone: Backbone) -> bool:
    """Whether all tokens of a network see each other, as in ViT, DeiT, DINO, CLIP and SigLIP."""
    return isinstance(getattr(backbone, "embed", None), Embed)


def make_rollout(graphdef: nnx.GraphDef, preprocessing: Preprocessing) -> Rollout:
    """The pure function `(arrays, images) -> maps`.

    `images` are uint8 `(batch, size, size, 3)`. A map `(rows, columns)` has the share of each patch in what
    the classifier reads: the class token, or the token that SigLIP pools with. The lowest is 0, the largest
    is 1.

    Args:
        graphdef: Definition of the model, in inference mode; `is_transformer` holds of its backbone.
        preprocessing: How the weights want images.
    """

    def maps(arrays: Arrays, images: jax.Array) -> jax.Array:
        backbone = merge(graphdef, arrays).backbone
        x = preprocessing.normalize(images)
        shape: Shape = getattr(backbone, "embed").shape  # noqa: B009
        attentions, reads = [], None
        for name in backbone.block_names:
            block = getattr(backbone, name)
            if isinstance(block, TransformerBlock):
                query, key, _ = block.attn.inputs(block.norm1(x))  # pyright: ignore[reportAttributeAccessIssue]
                attentions.append(attention_weights(query, key))
            elif isinstance(block, AttentionPool):
                query, key, _ = block.inputs(x)
                reads = attention_weights(query, key)[:, 0]
            x = block(x)
        seen = rollout(attentions)
        row = seen[:, 0] if reads is None else jnp.einsum("bi,bij->bj", reads, seen, precision="highest")
        side = images.shape[1] // shape.patch
        found = row[:, shape.tokens + shape.registers :].reshape(-1, side, side)
        found -= found.min((1, 2), keepdims=True)
        return found / jnp.maximum(found.max((1, 2), keepdims=True), 1e-12)

    return maps
