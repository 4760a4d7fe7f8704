"""What vision transformers have in common: tokens, attention, and the blocks in order.

Source: Dosovitskiy et al. 2020, arXiv:2010.11929. Names of blocks are those of timm's `VisionTransformer`.
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
    """A vision transformer.

    Attributes:
        width: Channels of a token.
        depth: Number of blocks.
        heads: Heads of the attention.
        patch: Side of a patch in pixels.
        tokens: Tokens with a position ahead of the patches: the class token and, second, the distillation's.
        registers: Tokens without a position behind those.
        positions: Positions ahead of those of the patches, as many as `tokens` unless the class has none.
        pre_norm: Whether the tokens are normalized ahead of the blocks; the patches then have no bias.
        layer_scale: Whether branches have a learnt scale.
        hidden: Channels inside the perceptrons; 0 for four times the width.
        activation: That of the perceptrons.
        epsilon: Added to the variance by normalizations.
        kind: The type of the model in transformers, on which its names there depend; "" if it is none there.
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
    """Patches, each mapped linearly to a token, with positions; the other tokens stand first."""

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
    """Multi-head self-attention over tokens `(batch, tokens, width)`; one kernel for all three inputs."""

    def __init__(self, width: int, heads: int, rngs: nnx.Rngs) -> None:
        self.qkv = Linear(width, 3 * width, rngs=rngs)
        self.proj = Linear(width, width, rngs=rngs)
        self.heads = heads

    def __call__(self, x: jax.Array, bias: jax.Array | None = None) -> jax.Array:
        """Attends; `bias`, `(batch or 1, heads, tokens, tokens)`, is added ahead of the softmax."""
        return self.proj(jax.nn.dot_product_attention(*self.inputs(x), bias).reshape(x.shape))

    def inputs(self, x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Queries, keys and values, `(batch, tokens, heads, width / heads)`."""
        width = x.shape[-1]
        # They lie side by side; devices that share the work on a row have heads of all three, not columns.
        shape = (3, self.heads, width // self.heads)
        kernel = batch_shard.shard_kernel(self.qkv.kernel[...].reshape(width, *shape), 2)
        qkv = jnp.einsum("btw,wchd->btchd", x, kernel)
        if self.qkv.bias is not None:
            qkv += self.qkv.bias[...].reshape(shape)
        return qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]


class TransformerBlock(nnx.Module):
    """Attention and a two-layer perceptron, each normalized before, scaled and added.

    Args:
        attention: Mixes the tokens.
        width: Channels of a token.
        hidden: Channels inside the perceptron; 0 for four times the width.
        activation: That of the perceptron.
        epsilon: Added to the variance by normalizations.
        layer_scale: Whether branches have a learnt scale.
        drop_path: Rate of stochastic depth.
        ndim: Axes of the input.
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
    """The normalization behind the last block."""

    def __init__(self, width: int, epsilon: float, rngs: nnx.Rngs) -> None:
        self.norm = LayerNorm(width, epsilon=epsilon, rngs=rngs)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        return self.norm(x)


class ClassToken(nnx.Module):
    """The first token: `(batch, tokens, width)` to `(batch, width)`."""

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        return x[:, 0]


def blocks_before_pooling(shape: Shape, setting: Setting) -> dict[str, nnx.Module]:
    """The blocks `embed`, `blocks.0` …, `norm`.

    Raises:
        ValueError: If the images are no multiple of the patches.
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
    """The blocks `embed`, `blocks.0` …, `norm`, `pre_logits`, the class token.

    Raises:
        ValueError: If the images are no multiple of the patches.
    """
    return Backbone({**blocks_before_pooling(shape, setting), PRE_LOGITS: ClassToken()}, shape.width)


def timm(shape: Shape, path: tuple[str, ...]) -> str | LibraryLayer | None:
    """The names of timm, in which the class token has no position if there are registers."""
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
    """The names of timm behind the embedding, for any transformer there."""
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
    """The place of a layer of a block.

    Args:
        modules: By the path of a layer in our block, its modules in the other one.
        layers: The layer's path in our block.
        block: The block's name there.
    """
    found = modules.get("/".join(layers))
    if found is None:
        return None
    return LibraryLayer(
        tuple(f"{block}.{module}" for module in ((found,) if isinstance(found, str) else found))
    )
