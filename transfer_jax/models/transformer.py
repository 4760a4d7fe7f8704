"""Modules of vision transformers: embedding, attention and blocks.

Source: Dosovitskiy et al. 2020, arXiv:2010.11929. The names of blocks are those of timm's
`VisionTransformer`.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from transfer_jax.models.backbone import PRE_LOGITS, Backbone
from transfer_jax.models.family import LibraryLayer, Setting
from transfer_jax.nn import batch_shard
from transfer_jax.nn.activations import Activation, gelu
from transfer_jax.nn.initializers import normal
from transfer_jax.nn.layers import Conv, DropPath, LayerNorm, LayerScale, Linear


@dataclasses.dataclass(frozen=True)
class Shape:
    """The sizes of a vision transformer.

    Attributes:
        width: Number of channels of a token.
        depth: Number of blocks.
        heads: Number of attention heads.
        patch: Side of a patch, in pixels.
        tokens: Number of tokens before the patches: 1 for the class token, 2 with the distillation token.
        registers: Number of register tokens, which have no position and follow these tokens.
        positions: Number of position embeddings before those of the patches. It equals `tokens`, unless the
            class token has no position.
        pre_norm: Whether the tokens are normalized before the blocks; the patch embedding then has no bias.
        layer_scale: Whether residual branches have a learned scale.
        hidden: Number of channels inside the perceptrons; 0 for four times the width.
        activation: Activation of the perceptrons.
        epsilon: Value added to the variance by normalizations.
        kind: Model type in transformers, which its layer names depend on; "" if transformers has no such
            model.
    """

    width: int
    depth: int
    heads: int
    patch: int = 16
    tokens: int = 1
    registers: int = 0
    positions: int = 1
    pre_norm: bool = False
    layer_scale: bool = False
    hidden: int = 0
    activation: Activation = gelu
    epsilon: float = 1e-6
    kind: str = "vit"


class Embed(nnx.Module):
    """The linear patch embedding with position embeddings, and the other tokens before the patches.

    It maps `(batch, height, width, channels)` to `(batch, tokens, width)`.
    """

    def __init__(self, shape: Shape, setting: Setting) -> None:
        grid, rngs = setting.image_size // shape.patch, setting.rngs
        draw = normal(0.02)
        self.patch = Conv(
            setting.channels,
            shape.width,
            shape.patch,
            strides=shape.patch,
            padding="VALID",
            use_bias=not shape.pre_norm,
            rngs=rngs,
        )
        counts = {"cls_token": shape.tokens > 0, "dist_token": shape.tokens > 1, "reg_token": shape.registers}
        self.names = tuple(name for name, count in counts.items() if count)
        for name in self.names:
            setattr(self, name, nnx.Param(draw(rngs.params(), (1, int(counts[name]), shape.width))))
        positions = grid * grid + shape.positions
        self.pos_embed = nnx.Param(draw(rngs.params(), (1, positions, shape.width)))
        if shape.pre_norm:
            self.norm = LayerNorm(shape.width, epsilon=shape.epsilon, rngs=rngs)
        self.shape = shape

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        x, positions = self.patch(x), self.pos_embed[...].astype(x.dtype)
        x = x.reshape(x.shape[0], -1, x.shape[-1]) + positions[:, self.shape.positions :]
        ahead = [getattr(self, name)[...].astype(x.dtype) for name in self.names]
        for index in range(self.shape.positions):
            ahead[index] += positions[:, index : index + 1]
        tokens = [jnp.broadcast_to(token, (x.shape[0], *token.shape[1:])) for token in ahead]
        x = jnp.concatenate([*tokens, x], axis=1)
        return self.norm(x) if self.shape.pre_norm else x


class Attention(nnx.Module):
    """Multi-head self-attention of `(batch, tokens, width)`, with one kernel for queries, keys and values."""

    def __init__(self, width: int, heads: int, rngs: nnx.Rngs) -> None:
        self.qkv = Linear(width, 3 * width, rngs=rngs)
        self.proj = Linear(width, width, rngs=rngs)
        self.heads = heads

    def __call__(self, x: jax.Array, bias: jax.Array | None = None) -> jax.Array:
        """Applies attention; `bias`, `(batch or 1, heads, tokens, tokens)`, is added before the softmax."""
        return self.proj(jax.nn.dot_product_attention(*self.inputs(x), bias).reshape(x.shape))

    def inputs(self, x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Returns queries, keys and values, each `(batch, tokens, heads, width / heads)`."""
        width = x.shape[-1]
        # The kernel is sharded by heads: each device then has the queries, keys and values of its heads.
        shape = (3, self.heads, width // self.heads)
        kernel = batch_shard.shard_kernel(self.qkv.kernel[...].reshape(width, *shape), 2)
        qkv = jnp.einsum("btw,wchd->btchd", x, kernel)
        if self.qkv.bias is not None:
            qkv += self.qkv.bias[...].reshape(shape)
        return qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]


class TransformerBlock(nnx.Module):
    """A residual attention and a residual two-layer perceptron, each after a normalization.

    It maps `(batch, tokens, width)` to the same shape.

    Args:
        attention: Attention module, which keeps the shape of its input.
        width: Number of channels of a token.
        hidden: Number of channels inside the perceptron; 0 for four times the width.
        activation: Activation of the perceptron.
        epsilon: Value added to the variance by normalizations.
        layer_scale: Whether the residual branches have a learned scale.
        drop_path: Rate of stochastic depth.
        ndim: Number of axes of the input.
        rngs: Source of the initial parameters.
    """

    def __init__(
        self,
        attention: nnx.Module,
        width: int,
        *,
        hidden: int = 0,
        activation: Activation = gelu,
        epsilon: float,
        layer_scale: bool = False,
        drop_path: float,
        ndim: int = 3,
        rngs: nnx.Rngs,
    ) -> None:
        self.norm1 = LayerNorm(width, epsilon=epsilon, rngs=rngs)
        self.attn = attention
        self.norm2 = LayerNorm(width, epsilon=epsilon, rngs=rngs)
        self.fc1 = Linear(width, hidden or 4 * width, rngs=rngs)
        self.fc2 = Linear(hidden or 4 * width, width, rngs=rngs)
        if layer_scale:
            self.ls1, self.ls2 = LayerScale(width, 1e-5, rngs), LayerScale(width, 1e-5, rngs)
        self.scaled, self.activation = layer_scale, activation
        self.drop_path = DropPath(drop_path, ndim=ndim)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        y = self.attn(self.norm1(x))
        x = x + self.drop_path(self.ls1(y) if self.scaled else y, rngs=rngs)
        y = self.fc2(self.activation(self.fc1(self.norm2(x))))
        return x + self.drop_path(self.ls2(y) if self.scaled else y, rngs=rngs)


class Norm(nnx.Module):
    """The normalization after the last block: `(batch, tokens, width)` to the same shape."""

    def __init__(self, width: int, epsilon: float, rngs: nnx.Rngs) -> None:
        self.norm = LayerNorm(width, epsilon=epsilon, rngs=rngs)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        return self.norm(x)


class ClassToken(nnx.Module):
    """A pooling that returns the first token: `(batch, tokens, width)` to `(batch, width)`."""

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        return x[:, 0]


def blocks_before_pooling(shape: Shape, setting: Setting) -> dict[str, nnx.Module]:
    """Builds the blocks `embed`, `blocks.0` …, `norm`, which give `(batch, tokens, shape.width)`.

    Raises:
        ValueError: If the image size is not a multiple of the patch size.
    """
    if setting.image_size % shape.patch:
        raise ValueError(
            f"image_size must be a multiple of the patch of {shape.patch} pixels, got {setting.image_size}"
        )
    blocks: dict[str, nnx.Module] = {"embed": Embed(shape, setting)}
    for index in range(shape.depth):
        blocks[f"blocks.{index}"] = TransformerBlock(
            Attention(shape.width, shape.heads, setting.rngs),
            shape.width,
            hidden=shape.hidden,
            activation=shape.activation,
            epsilon=shape.epsilon,
            layer_scale=shape.layer_scale,
            drop_path=setting.drop_path * index / max(shape.depth - 1, 1),
            rngs=setting.rngs,
        )
    return {**blocks, "norm": Norm(shape.width, shape.epsilon, setting.rngs)}


def build(shape: Shape, setting: Setting) -> Backbone:
    """Builds the blocks `embed`, `blocks.0` …, `norm`, `pre_logits`.

    The backbone maps images `(batch, height, width, channels)` to the class token `(batch, shape.width)`.

    Raises:
        ValueError: If the image size is not a multiple of the patch size.
    """
    return Backbone({**blocks_before_pooling(shape, setting), PRE_LOGITS: ClassToken()}, shape.width)


def timm(shape: Shape, path: tuple[str, ...]) -> str | LibraryLayer | None:
    """Returns the layer names of timm, where the class token has no position if there are registers."""
    if shape.registers and shape.positions:
        return None
    match path:
        case ("head", "classifier"):
            return "head"
        case ("backbone", "embed", "patch"):
            return "patch_embed.proj"
        case ("backbone", "embed", "norm"):
            return "norm_pre"
        case ("backbone", "embed", name):
            return name
    return timm_layer(path)


def timm_layer(path: tuple[str, ...]) -> str | None:
    """Returns the layer names of timm after the embedding, for any transformer."""
    match path:
        case ("backbone", "norm", "norm"):
            return "norm"
        case ("backbone", block, "fc1" | "fc2" as layer):
            return f"{block}.mlp.{layer}"
        case ("backbone", block, *layers):
            return ".".join((block, *layers))
    return None


def layer_of(
    modules: Mapping[str, str | tuple[str, ...]], layers: Sequence[str], block: str
) -> LibraryLayer | None:
    """Returns the layer of another library for a layer of a block.

    Args:
        modules: Module names in the other library's block, by the path of the layer in the block here.
        layers: Path of the layer in the block here.
        block: Name of the block in the other library.
    """
    found = modules.get("/".join(layers))
    if found is None:
        return None
    return LibraryLayer(
        tuple(f"{block}.{module}" for module in ((found,) if isinstance(found, str) else found))
    )
