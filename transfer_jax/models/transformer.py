"""Modules of vision transformers: embedding, blocks and pooling.

Sources: Dosovitskiy et al. 2020, arXiv:2010.11929; Shazeer 2020, arXiv:2002.05202 (gated perceptrons). The
names of blocks are those of timm's `VisionTransformer` and `Eva`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx

from transfer_jax.models.attention import Attention, Bias, Rope
from transfer_jax.models.backbone import PRE_LOGITS, Backbone
from transfer_jax.models.family import LibraryLayer, Setting
from transfer_jax.nn.activations import Activation, gelu
from transfer_jax.nn.initializers import normal
from transfer_jax.nn.layers import Conv, DropPath, Identity, LayerNorm, LayerScale, Linear, RmsNorm

Pool = Literal["token", "mean", "mean_norm"]
"""The pooling of tokens; see `Shape.pool`."""
NormClass = type[LayerNorm] | type[RmsNorm]
"""A class of normalizations of tokens."""


@dataclasses.dataclass(frozen=True)
class Shape:
    """The sizes of a vision transformer.

    Attributes:
        width: Number of channels of a token.
        depth: Number of blocks.
        heads: Number of attention heads.
        patch: Side of a patch, in pixels.
        ragged: Whether the image size may be another than a multiple of the patch size. The network does not
            read the rest of an image, at the right and the bottom.
        tokens: Number of tokens before the patches: 1 for the class token, 2 with the distillation token.
        registers: Number of register tokens, which have no position and follow these tokens.
        positions: Number of position embeddings before those of the patches. It equals `tokens`, unless the
            class token has no position.
        absolute: Whether there are position embeddings.
        rope: Rotary position embeddings; None for none.
        relative: Whether attention has a learned bias for relative positions.
        pool: Input of the classifier. `token` is the first token and `mean` is the mean of the patches, both
            after a normalization; `mean_norm` is the mean of the patches, which is then normalized.
        bias: Inputs of the attention that have a bias.
        linear_bias: Whether the other linear layers of the blocks have a bias.
        norm: Class of the normalizations.
        norm_patches: Whether the patches are normalized before their positions are added.
        norm_attention: Whether there is a normalization between the attention and its projection.
        norm_hidden: Whether there is a normalization inside the perceptrons.
        gated: Whether the perceptrons are gated: the activation of a linear layer multiplies another one.
        pre_norm: Whether the tokens are normalized before the blocks; the patch embedding then has no bias.
        layer_scale: Whether residual branches have a learned scale.
        hidden: Number of channels inside the perceptrons; 0 for four times the width.
        activation: Activation of the perceptrons, or of their gates.
        epsilon: Value added to the variance by normalizations.
        kind: Model type in transformers, which its layer names depend on; "" if transformers has no such
            model.
    """

    width: int
    depth: int
    heads: int
    patch: int = 16
    ragged: bool = False
    tokens: int = 1
    registers: int = 0
    positions: int = 1
    absolute: bool = True
    rope: Rope | None = None
    relative: bool = False
    pool: Pool = "token"
    bias: Bias = "qkv"
    linear_bias: bool = True
    norm: NormClass = LayerNorm
    norm_patches: bool = False
    norm_attention: bool = False
    norm_hidden: bool = False
    gated: bool = False
    pre_norm: bool = False
    layer_scale: bool = False
    hidden: int = 0
    activation: Activation = gelu
    epsilon: float = 1e-6
    kind: str = "vit"

    @property
    def before(self) -> int:
        """Returns the number of tokens before those of the patches."""
        return self.tokens + self.registers


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
        if shape.absolute:
            positions = grid * grid + shape.positions
            self.pos_embed = nnx.Param(draw(rngs.params(), (1, positions, shape.width)))
        if shape.norm_patches:
            self.norm_patches = shape.norm(shape.width, epsilon=shape.epsilon, rngs=rngs)
        if shape.pre_norm:
            self.norm = shape.norm(shape.width, epsilon=shape.epsilon, rngs=rngs)
        self.shape = shape

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        x = self.norm_patches(self.patch(x)) if self.shape.norm_patches else self.patch(x)
        x = x.reshape(x.shape[0], -1, x.shape[-1])
        ahead = [getattr(self, name)[...].astype(x.dtype) for name in self.names]
        if self.shape.absolute:
            positions = self.pos_embed[...].astype(x.dtype)
            x = x + positions[:, self.shape.positions :]
            for index in range(self.shape.positions):
                ahead[index] += positions[:, index : index + 1]
        tokens = [jnp.broadcast_to(token, (x.shape[0], *token.shape[1:])) for token in ahead]
        x = jnp.concatenate([*tokens, x], axis=1)
        return self.norm(x) if self.shape.pre_norm else x


class TransformerBlock(nnx.Module):
    """A residual attention and a residual two-layer perceptron, each after a normalization.

    It maps `(batch, tokens, width)` to the same shape.

    Args:
        attention: Attention module, which keeps the shape of its input.
        width: Number of channels of a token.
        hidden: Number of channels inside the perceptron; 0 for four times the width.
        gated: Whether the perceptron is gated.
        norm_hidden: Whether there is a normalization inside the perceptron.
        activation: Activation of the perceptron, or of its gate.
        use_bias: Whether the perceptron has biases.
        norm: Class of the normalizations.
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
        gated: bool = False,
        norm_hidden: bool = False,
        activation: Activation = gelu,
        use_bias: bool = True,
        norm: NormClass = LayerNorm,
        epsilon: float,
        layer_scale: bool = False,
        drop_path: float,
        ndim: int = 3,
        rngs: nnx.Rngs,
    ) -> None:
        self.norm1 = norm(width, epsilon=epsilon, rngs=rngs)
        self.attn = attention
        self.norm2 = norm(width, epsilon=epsilon, rngs=rngs)
        hidden = hidden or 4 * width
        self.fc1 = Linear(width, 2 * hidden if gated else hidden, use_bias=use_bias, rngs=rngs)
        if norm_hidden:
            self.norm_hidden = norm(hidden, epsilon=epsilon, rngs=rngs)
        self.fc2 = Linear(hidden, width, use_bias=use_bias, rngs=rngs)
        if layer_scale:
            self.ls1, self.ls2 = LayerScale(width, 1e-5, rngs), LayerScale(width, 1e-5, rngs)
        self.scaled, self.activation = layer_scale, activation
        self.gated, self.has_norm = gated, norm_hidden
        self.drop_path = DropPath(drop_path, ndim=ndim)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        y = self.attn(self.norm1(x))
        x = x + self.drop_path(self.ls1(y) if self.scaled else y, rngs=rngs)
        y = self._perceptron(self.norm2(x))
        return x + self.drop_path(self.ls2(y) if self.scaled else y, rngs=rngs)

    def _perceptron(self, x: jax.Array) -> jax.Array:
        x = self.fc1(x)
        if self.gated:
            gate, x = jnp.split(x, 2, axis=-1)
            x = self.activation(gate) * x
        else:
            x = self.activation(x)
        return self.fc2(self.norm_hidden(x) if self.has_norm else x)


class Norm(nnx.Module):
    """The normalization after the last block: `(batch, tokens, width)` to the same shape."""

    def __init__(self, width: int, epsilon: float, rngs: nnx.Rngs, *, norm: NormClass = LayerNorm) -> None:
        self.norm = norm(width, epsilon=epsilon, rngs=rngs)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        return self.norm(x)


class ClassToken(nnx.Module):
    """A pooling that returns the first token: `(batch, tokens, width)` to `(batch, width)`."""

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        return x[:, 0]


class PatchMean(nnx.Module):
    """The mean of the tokens of the patches: `(batch, tokens, width)` to `(batch, width)`.

    Args:
        before: Number of tokens before the patches.
    """

    def __init__(self, before: int) -> None:
        self.before = before

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        return x[:, self.before :].mean(1)


class MeanNorm(Norm):
    """The mean of the tokens of the patches, normalized: `(batch, tokens, width)` to `(batch, width)`."""

    def __init__(self, width: int, epsilon: float, before: int, rngs: nnx.Rngs) -> None:
        super().__init__(width, epsilon, rngs)
        self.before = before

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        return self.norm(x[:, self.before :].mean(1))


def blocks_before_pooling(
    shape: Shape, setting: Setting, embed: nnx.Module | None = None
) -> dict[str, nnx.Module]:
    """Builds the blocks `embed`, `blocks.0` …, `norm`, which give `(batch, tokens, shape.width)`.

    Args:
        shape: Sizes of the network.
        setting: Options of building it.
        embed: Module from images to tokens; None for an `Embed`.

    Raises:
        ValueError: If the image size is not a multiple of the patch size.
    """
    norm = Norm(shape.width, shape.epsilon, setting.rngs, norm=shape.norm)
    return {**blocks_before_norm(shape, setting, embed), "norm": norm}


def blocks_before_norm(
    shape: Shape, setting: Setting, embed: nnx.Module | None = None
) -> dict[str, nnx.Module]:
    """Builds the blocks `embed`, `blocks.0` …; as `blocks_before_pooling`, without `norm`.

    Raises:
        ValueError: As `blocks_before_pooling`.
    """
    if setting.image_size % shape.patch and not shape.ragged:
        raise ValueError(
            f"image_size must be a multiple of the patch of {shape.patch} pixels, got {setting.image_size}"
        )
    blocks: dict[str, nnx.Module] = {"embed": embed or Embed(shape, setting)}
    for index in range(shape.depth):
        attention = Attention(
            shape.width,
            shape.heads,
            setting.rngs,
            bias=shape.bias,
            rope=shape.rope,
            before=shape.before,
            grid=setting.image_size // shape.patch if shape.relative else 0,
            norm=shape.epsilon if shape.norm_attention else 0.0,
            use_bias=shape.linear_bias,
        )
        blocks[f"blocks.{index}"] = TransformerBlock(
            attention,
            shape.width,
            hidden=shape.hidden,
            gated=shape.gated,
            norm_hidden=shape.norm_hidden,
            activation=shape.activation,
            use_bias=shape.linear_bias,
            norm=shape.norm,
            epsilon=shape.epsilon,
            layer_scale=shape.layer_scale,
            drop_path=setting.drop_path * index / max(shape.depth - 1, 1),
            rngs=setting.rngs,
        )
    return blocks


def build(shape: Shape, setting: Setting) -> Backbone:
    """Builds the blocks `embed`, `blocks.0` …, `norm`, `pre_logits`; or `fc_norm` for `norm`, which pools.

    The backbone maps images `(batch, height, width, channels)` to features `(batch, shape.width)`.

    Raises:
        ValueError: If the image size is not a multiple of the patch size.
    """
    if shape.pool == "mean_norm":
        blocks = blocks_before_norm(shape, setting)
        blocks["fc_norm"] = MeanNorm(shape.width, shape.epsilon, shape.before, setting.rngs)
        return Backbone({**blocks, PRE_LOGITS: Identity()}, shape.width)
    blocks = blocks_before_pooling(shape, setting)
    pool = ClassToken() if shape.pool == "token" else PatchMean(shape.before)
    return Backbone({**blocks, PRE_LOGITS: pool}, shape.width)


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
        case ("backbone", "embed", "norm_patches"):
            return "patch_embed.norm"
        case ("backbone", "embed", name):
            return name
    return timm_layer(path)


def timm_layer(path: tuple[str, ...]) -> str | None:
    """Returns the layer names of timm after the embedding, for any transformer."""
    match path:
        case ("backbone", "norm" | "fc_norm" as block, "norm"):
            return block
        case ("backbone", block, "fc1" | "fc2" as layer):
            return f"{block}.mlp.{layer}"
        case ("backbone", block, "norm_hidden"):
            return f"{block}.mlp.norm"
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
