"""TinyViT, a small vision transformer that begins with convolutions, with the names of timm.

Source: Wu et al. 2022, arXiv:2207.10666. The first stage has inverted residual blocks. The blocks of the
other stages have attention within windows, a depthwise convolution, and a perceptron.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from transfer_jax.models.backbone import PRE_LOGITS, Backbone
from transfer_jax.models.family import IMAGENET_MEAN, IMAGENET_STD, Family, Setting, Variant
from transfer_jax.models.maxvit_layers import PooledNorm
from transfer_jax.models.mbconv import Style
from transfer_jax.models.preprocessing import Preprocessing
from transfer_jax.models.swin import WindowAttention, relative_positions
from transfer_jax.models.transformer import TransformerBlock
from transfer_jax.nn.activations import gelu
from transfer_jax.nn.initializers import zeros
from transfer_jax.nn.layers import DropPath, Identity, LayerNorm

_EPSILON = 1e-5
_HEAD_WIDTH = 32
_EXPANSION = 4
_STYLE = Style(activation=gelu)


@dataclasses.dataclass(frozen=True)
class Shape:
    """The sizes of a TinyViT.

    Attributes:
        widths: Number of channels of each stage.
        depths: Number of blocks of each stage.
        windows: Side of the windows of each stage but the first, in tokens.
    """

    widths: tuple[int, int, int, int]
    depths: tuple[int, int, int, int] = (2, 2, 6, 2)
    windows: tuple[int, int, int] = (7, 14, 7)


class Embed(nnx.Module):
    """Two convolutions with stride 2: images to `(batch, height / 4, width / 4, features)`."""

    def __init__(self, channels: int, features: int, rngs: nnx.Rngs) -> None:
        half = features // 2
        self.conv1 = _STYLE.conv(channels, half, 3, strides=2, activation=gelu, rngs=rngs)
        self.conv2 = _STYLE.conv(half, features, 3, strides=2, rngs=rngs)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        return self.conv2(self.conv1(x))


class Bottleneck(nnx.Module):
    """A 1x1, a depthwise 3x3 and a 1x1 convolution; with stride 1, a residual block that ends with a GELU.

    It maps `(batch, height, width, in_features)` to `(batch, height / strides, width / strides, features)`.

    Args:
        in_features: Number of channels of the input.
        features: Number of channels of the output.
        inner: Number of channels of the depthwise convolution.
        strides: Stride of the depthwise convolution.
        drop_path: Rate of stochastic depth.
        rngs: Source of the initial parameters.

    Attributes:
        residual: Whether the input is added to the output.
    """

    def __init__(
        self,
        in_features: int,
        features: int,
        inner: int,
        *,
        strides: int = 1,
        drop_path: float = 0.0,
        rngs: nnx.Rngs,
    ) -> None:
        self.conv1 = _STYLE.conv(in_features, inner, activation=gelu, rngs=rngs)
        self.conv2 = _STYLE.conv(inner, inner, 3, strides=strides, groups=inner, activation=gelu, rngs=rngs)
        self.conv3 = _STYLE.conv(inner, features, rngs=rngs)
        self.residual = strides == 1
        self.drop_path = DropPath(drop_path, ndim=4)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        y = self.conv3(self.conv2(self.conv1(x)))
        return gelu(x + self.drop_path(y, rngs=rngs)) if self.residual else y


class BiasedAttention(WindowAttention):
    """Normalization and attention within windows, with a learned bias for each distance between two tokens.

    It maps `(batch, height, width, channels)` to the same shape. Distances down and to the right count
    without their signs. The channels of a head are those of its query, its key and its value.

    Args:
        width: Number of channels of a token.
        heads: Number of attention heads.
        window: Side of a window, in tokens.
        rngs: Source of the initial parameters.
    """

    def __init__(self, width: int, heads: int, window: int, rngs: nnx.Rngs) -> None:
        super().__init__(width, heads, window, False, rngs)
        self.norm = LayerNorm(width, epsilon=_EPSILON, rngs=rngs)

    def inputs(self, x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        qkv = self.qkv(self.norm(x)).reshape(*x.shape[:2], self.heads, 3, -1)
        return qkv[..., 0, :], qkv[..., 1, :], qkv[..., 2, :]

    def position_bias(self, height: int, width: int) -> jax.Array:
        down, right = relative_positions(height, width)
        down, right = jnp.abs(down - (height - 1)), jnp.abs(right - (width - 1))
        return self.attention_biases[...][:, down * self.window + right][None]

    def _add_positions(self, heads: int, rngs: nnx.Rngs) -> None:
        self.attention_biases = nnx.Param(zeros(rngs.params(), (heads, self.window**2)))


class Block(TransformerBlock):
    """Attention within windows, a depthwise 3x3 convolution without a shortcut, and a perceptron.

    It maps `(batch, height, width, features)` to the same shape.
    """

    def __init__(self, width: int, window: int, drop_path: float, rngs: nnx.Rngs) -> None:
        attention = BiasedAttention(width, width // _HEAD_WIDTH, window, rngs)
        super().__init__(attention, width, epsilon=_EPSILON, drop_path=drop_path, ndim=4, rngs=rngs)
        del self.norm1  # The attention normalizes its windows, after they are padded.
        self.local_conv = _STYLE.conv(width, width, 3, groups=width, rngs=rngs)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        x = self.local_conv(x + self.drop_path(self.attn(x), rngs=rngs))
        return x + self.drop_path(self._perceptron(self.norm2(x)), rngs=rngs)


def build(shape: Shape, setting: Setting) -> Backbone:
    """Builds the blocks `patch_embed`, `stages.0.blocks.0` …, `stages.1.downsample`, …, `norm`, `pre_logits`.

    The block `norm` pools. The backbone maps images `(batch, height, width, channels)` to features `(batch,
    shape.widths[-1])`.
    """
    rngs, features, index = setting.rngs, shape.widths[0], 0
    blocks: dict[str, nnx.Module] = {"patch_embed": Embed(setting.channels, features, rngs)}
    for stage, (depth, width) in enumerate(zip(shape.depths, shape.widths, strict=True)):
        if stage:
            blocks[f"stages.{stage}.downsample"] = Bottleneck(features, width, width, strides=2, rngs=rngs)
        for repeat in range(depth):
            rate = setting.drop_path * index / (sum(shape.depths) - 1)
            if stage:
                block = Block(width, shape.windows[stage - 1], rate, rngs)
            else:
                block = Bottleneck(width, width, _EXPANSION * width, drop_path=rate, rngs=rngs)
            blocks[f"stages.{stage}.blocks.{repeat}"] = block
            index += 1
        features = width
    blocks["norm"] = PooledNorm(features, _EPSILON, rngs)
    blocks[PRE_LOGITS] = Identity()
    return Backbone(blocks, features)


def _timm(shape: Shape, path: tuple[str, ...]) -> str | None:
    match path:
        case ("head", "classifier"):
            return "head.fc"
        case ("backbone", "norm", "norm"):
            return "head.norm"
        case ("backbone", block, "norm2"):
            return f"{block}.mlp.norm"
        case ("backbone", block, "fc1" | "fc2" as layer):
            return f"{block}.mlp.{layer}"
        case ("backbone", block, "attn", layer):
            return f"{block}.attn.{layer}"
        case ("backbone", block, conv, layer):
            return f"{block}.{conv}.{'conv' if layer == 'conv' else 'bn'}"
    return None


_WIDTHS = {"5m": (64, 128, 160, 320), "11m": (64, 128, 256, 448), "21m": (96, 192, 384, 576)}
_SHAPES = {
    **{f"tiny_vit_{size}_224": Shape(widths) for size, widths in _WIDTHS.items()},
    "tiny_vit_21m_384": Shape(_WIDTHS["21m"], windows=(12, 24, 12)),
    "tiny_vit_21m_512": Shape(_WIDTHS["21m"], windows=(16, 32, 16)),
}


def _variant(name: str, shape: Shape) -> Variant:
    size = int(name.rpartition("_")[2])
    preprocessing = Preprocessing(
        image_size=size, crop_fraction=0.95 if size == 224 else 1.0, mean=IMAGENET_MEAN, std=IMAGENET_STD
    )
    return Variant(shape=shape, preprocessing=preprocessing)


FAMILY = Family(
    name="tinyvit",
    variants={name: _variant(name, shape) for name, shape in _SHAPES.items()},
    build=build,
    layer_names={"timm": _timm},
)
