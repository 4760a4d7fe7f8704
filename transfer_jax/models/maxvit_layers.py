"""Layers of MaxViT and CoAtNet: stem, inverted residual block, attention with relative positions, names.

Sources: Tu et al. 2022, arXiv:2204.01697; Dai et al. 2021, arXiv:2106.04803. The variants are those of timm's
`maxxvit.py`: `tf` as in the authors' code, and `rw`, which timm trained.
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from transfer_jax.models import swin
from transfer_jax.models.attention import Attention
from transfer_jax.models.family import LibraryLayer
from transfer_jax.models.mbconv import SqueezeExcite, Style, round_channels
from transfer_jax.models.transformer import Norm
from transfer_jax.nn.activations import Activation, gelu, silu
from transfer_jax.nn.initializers import normal
from transfer_jax.nn.layers import Conv, DropPath, Linear, NormAct
from transfer_jax.nn.pooling import max_pool

HEAD = 32
"""Number of channels of an attention head."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shape:
    """The sizes of a MaxViT or a CoAtNet.

    Attributes:
        depths: Number of blocks of each stage.
        widths: Number of channels of each stage.
        stem: Number of channels of the two convolutions of the stem.
        hidden: Number of channels of a layer before the classifier; 0 for no such layer.
        activation: Activation of the inverted residual blocks.
        attention_activation: Activation of the perceptrons after attention.
        squeeze: Activation inside squeeze-and-excitation.
        ratio: Number of channels inside squeeze-and-excitation, relative to the width of the block.
        same: Whether to pad as TensorFlow's `SAME` does.
        conv_epsilon: Value added to the variance by the normalizations of convolutions.
        epsilon: Value added to the variance by other normalizations.
        of_output: Whether the expansion is computed from the number of channels of the output of a block.
        stem_bias: Whether the first convolution has a bias.
        conv_bias: Whether projections of the inverted residual blocks, and of their inputs, have a bias.
        shortcut_bias: Whether projections of the inputs of attention blocks have a bias.
        pre_activation: Whether an activation follows the first normalization of an inverted residual block.
        early: Whether squeeze-and-excitation comes before the normalization.
        pools: Whether the first inverted residual block of a stage averages its input, in place of a stride.
        max_pools: Whether the inputs of residual branches are pooled to their maximum; otherwise averaged.
        positions: Kind of the relative positions: a `table`, a table in the order of TensorFlow, `tf`, or the
            number of channels inside a perceptron.
        heads_first: Whether the kernel has queries, keys and values of each head together.
        layer_scale: Whether residual branches of attention blocks have a learned scale.
    """

    depths: tuple[int, int, int, int]
    widths: tuple[int, int, int, int]
    stem: tuple[int, int]
    hidden: int = 0
    activation: Activation = silu
    attention_activation: Activation = gelu
    squeeze: Activation = silu
    ratio: float = 1 / 16
    same: bool = False
    conv_epsilon: float = 1e-5
    epsilon: float = 1e-6
    of_output: bool = False
    stem_bias: bool = False
    conv_bias: bool = False
    shortcut_bias: bool = True
    pre_activation: bool = False
    early: bool = False
    pools: bool = False
    max_pools: bool = False
    positions: Literal["table", "tf"] | int = "table"
    heads_first: bool = True
    layer_scale: bool = False

    @property
    def style(self) -> Style:
        """Returns the properties of convolutions."""
        return Style(
            activation=self.activation, squeeze=self.squeeze, epsilon=self.conv_epsilon, same=self.same
        )


class Stem(nnx.Module):
    """Two 3x3 convolutions: `(batch, height, width, …)` to `(batch, height / 2, width / 2, …)`."""

    def __init__(self, channels: int, shape: Shape, rngs: nnx.Rngs) -> None:
        inner, features = shape.stem
        padding = "SAME" if shape.same else 1
        options = {"padding": padding, "rngs": rngs}
        self.conv1 = Conv(channels, inner, 3, strides=2, use_bias=shape.stem_bias, **options)
        self.norm1 = NormAct(inner, epsilon=shape.conv_epsilon, activation=shape.activation, rngs=rngs)
        self.conv2 = Conv(inner, features, 3, use_bias=shape.stem_bias, **options)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        return self.conv2(self.norm1(self.conv1(x)))


def average_fours(x: jax.Array) -> jax.Array:
    """Returns the mean of each 2x2 pixels of maps `(batch, height, width, channels)`."""
    batch, height, width, features = x.shape
    return x.reshape(batch, height // 2, 2, width // 2, 2, features).mean(axis=(2, 4))


def pool(x: jax.Array, shape: Shape) -> jax.Array:
    """Returns the pooled input of a residual branch, of half the height and the width."""
    return max_pool(x, 3, 2, 1) if shape.max_pools else average_fours(x)


class InvertedResidual(nnx.Module):
    """An inverted residual block that begins with a normalization.

    It maps `(batch, height, width, in_features)` to `(batch, height, width, features)`. Height and width are
    halved if `strides` is 2.
    """

    def __init__(
        self, in_features: int, features: int, strides: int, shape: Shape, drop_path: float, rngs: nnx.Rngs
    ) -> None:
        style, wide = shape.style, round_channels(4 * (features if shape.of_output else in_features))
        self.has_shortcut = strides == 2 and in_features != features
        if self.has_shortcut:
            self.shortcut = Conv(in_features, features, use_bias=shape.conv_bias, rngs=rngs)
        activation = shape.activation if shape.pre_activation else _unchanged
        self.pre_norm = NormAct(in_features, epsilon=shape.conv_epsilon, activation=activation, rngs=rngs)
        self.expand = style.conv(in_features, wide, activation=shape.activation, rngs=rngs)
        self.pools, self.strides = shape.pools and strides == 2, strides
        self.depthwise = style.conv(
            wide,
            wide,
            3,
            strides=1 if self.pools else strides,
            groups=wide,
            activation=shape.activation,
            rngs=rngs,
        )
        self.se = SqueezeExcite(wide, int(shape.ratio * (features if shape.of_output else wide)), style, rngs)
        self.project = Conv(wide, features, use_bias=shape.conv_bias, rngs=rngs)
        self.shape = shape
        self.drop_path = DropPath(drop_path)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        y = self.pre_norm(x)
        y = self.expand(average_fours(y) if self.pools else y)
        if self.shape.early:
            y = self.shape.activation(self.depthwise.norm(self.se(self.depthwise.conv(y))))
        else:
            y = self.se(self.depthwise(y))
        x = pool(x, self.shape) if self.strides == 2 else x
        return (self.shortcut(x) if self.has_shortcut else x) + self.drop_path(self.project(y), rngs=rngs)


def _unchanged(x: jax.Array) -> jax.Array:
    return x


class PositionBias(nnx.Module):
    """A perceptron from the distance between two tokens, on a logarithmic scale, to a bias for each head."""

    def __init__(self, heads: int, hidden: int, rngs: nnx.Rngs) -> None:
        self.hidden = Linear(2, hidden, rngs=rngs)
        self.heads = Linear(hidden, heads, rngs=rngs)

    def __call__(self, side: int) -> jax.Array:
        """Returns the bias of each distance, `(distances, heads)`, for windows of a side in tokens."""
        distances = np.arange(1 - side, side, dtype=np.float32)
        distances = np.sign(distances) * np.log1p(np.abs(distances))
        pairs = np.stack(np.meshgrid(distances, distances, indexing="ij"), -1).reshape(-1, 2)
        return self.heads(jax.nn.relu(self.hidden(jnp.asarray(pairs))))


class RelativeAttention(Attention):
    """Attention between all tokens of a window: `(batch, height, width, in_features)` to `(…, features)`.

    Args:
        in_features: Number of channels of the input.
        features: Number of channels of the output.
        side: Height and width of the window, in tokens.
        shape: Sizes of the network.
        rngs: Source of the initial parameters.
    """

    def __init__(self, in_features: int, features: int, side: int, shape: Shape, rngs: nnx.Rngs) -> None:
        heads = in_features // HEAD
        super().__init__(in_features, heads, rngs)
        if features != in_features:
            self.proj = Linear(in_features, features, rngs=rngs)
        if isinstance(shape.positions, int):
            self.positions = PositionBias(heads, shape.positions, rngs)
        else:
            count = 2 * side - 1
            table = (heads, count, count) if shape.positions == "tf" else (count**2, heads)
            self.relative_position_bias_table = nnx.Param(normal(0.02)(rngs.params(), table))
        self.side, self.kind, self.heads_first = side, shape.positions, shape.heads_first

    def __call__(self, x: jax.Array) -> jax.Array:  # pyright: ignore[reportIncompatibleMethodOverride]
        batch, height, width, _ = x.shape
        tokens = super().__call__(x.reshape(batch, height * width, -1), self.position_bias().astype(x.dtype))
        return tokens.reshape(batch, height, width, -1)

    def inputs(self, x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        if not self.heads_first:
            return super().inputs(x)
        query, key, value = jnp.split(self.qkv(x).reshape(*x.shape[:2], self.heads, -1), 3, axis=-1)
        return query, key, value

    def position_bias(self) -> jax.Array:
        """Returns the bias of each pair of tokens, `(1, heads, tokens, tokens)`."""
        down, right = swin.relative_positions(self.side, self.side)
        if self.kind == "tf":  # from the query to the key
            return self.relative_position_bias_table[...][:, down.T, right.T][None]
        is_table = self.kind == "table"
        table = self.relative_position_bias_table[...] if is_table else self.positions(self.side)
        return table[down * (2 * self.side - 1) + right].transpose(2, 0, 1)[None]


class PooledNorm(Norm):
    """Normalized global average pooling: `(batch, height, width, channels)` to `(batch, channels)`."""

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        return self.norm(x.mean(axis=(1, 2)))


class Hidden(nnx.Module):
    """A linear layer and a hyperbolic tangent: `(batch, in_features)` to `(batch, features)`."""

    def __init__(self, in_features: int, features: int, rngs: nnx.Rngs) -> None:
        self.fc = Linear(in_features, features, rngs=rngs)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        return jnp.tanh(self.fc(x))


_NAMES = {
    "pre_norm/norm": "pre_norm",
    "expand/conv": "conv1_1x1",
    "expand/norm": "norm1",
    "depthwise/conv": "conv2_kxk",
    "depthwise/norm": "norm2",
    "project": "conv3_1x1",
    "shortcut": "shortcut.expand",
    "attn/relative_position_bias_table": "attn.rel_pos.relative_position_bias_table",
    "attn/positions/hidden": "attn.rel_pos.mlp.fc1",
    "attn/positions/heads": "attn.rel_pos.mlp.fc2",
    "fc1": "mlp.fc1",
    "fc2": "mlp.fc2",
}


def timm_layer(shape: Shape, layers: tuple[str, ...]) -> str:
    """Returns timm's name of a layer in an inverted residual block or an attention block."""
    if layers[0] == "se":
        return f"{'se_early' if shape.early else 'se'}.fc{1 if layers[1] == 'reduce' else 2}"
    return _NAMES.get("/".join(layers), ".".join(layers))


def timm_outside(shape: Shape, path: tuple[str, ...]) -> str | LibraryLayer | None:
    """Returns timm's name of a layer outside of the stages; None for other layers."""
    match path:
        case ("head", "classifier"):
            return "head.fc"
        case ("backbone", "stem", layer, *_):
            return f"stem.{layer}"
        case ("backbone", "norm", "norm"):
            return "head.norm" if shape.hidden else "norm"
        case ("backbone", "hidden", "fc"):
            return "head.pre_logits.fc"
    return None
