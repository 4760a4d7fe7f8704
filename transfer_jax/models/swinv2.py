"""Swin transformers V2: cosine attention, a bias computed from distances, normalizations after the branches.

Source: Liu et al. 2022, arXiv:2111.09883. The names of blocks and networks are timm's. Images can have any
size: windows shrink to the feature map where it is smaller, and other maps are padded as in torchvision, that
is at the right and the bottom, before the shift. timm shifts first, so results are equal if no padding is
needed. The bias is a function of distances, so no parameter depends on the size of windows.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from transfer_jax.models import swin
from transfer_jax.models.backbone import PRE_LOGITS, Backbone
from transfer_jax.models.family import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Family,
    LibraryLayer,
    Setting,
    Variant,
    with_prefix,
)
from transfer_jax.models.preprocessing import Preprocessing
from transfer_jax.models.transformer import Norm, layer_of, timm_layer
from transfer_jax.nn.activations import gelu
from transfer_jax.nn.initializers import constant
from transfer_jax.nn.layers import DropPath, GlobalPool, LayerNorm, Linear

_EPSILON = 1e-5
_HIDDEN = 512
"""Number of channels inside the perceptron that computes the bias."""


@dataclasses.dataclass(frozen=True)
class Shape(swin.Shape):
    """The sizes of a Swin transformer V2.

    Attributes:
        pretrained: Side of the windows of each stage in the pretraining, which distances are relative to; 0
            for the windows of this network.
    """

    pretrained: tuple[int, int, int, int] = (0, 0, 0, 0)


class PositionBias(nnx.Module):
    """A perceptron from the distance between two tokens, on a logarithmic scale, to a bias for each head."""

    def __init__(self, heads: int, pretrained: int, rngs: nnx.Rngs) -> None:
        self.hidden = Linear(2, _HIDDEN, rngs=rngs)
        self.heads = Linear(_HIDDEN, heads, use_bias=False, rngs=rngs)
        self.pretrained = pretrained

    def __call__(self, height: int, width: int) -> jax.Array:
        """Returns the bias of each pair of tokens of a window, `(1, heads, tokens, tokens)`."""
        rows, columns = (self._scaled(length) for length in (height, width))
        distances = np.stack(np.meshgrid(rows, columns, indexing="ij"), -1).reshape(-1, 2)
        table = 16 * jax.nn.sigmoid(self.heads(jax.nn.relu(self.hidden(jnp.asarray(distances)))))
        down, right = swin.relative_positions(height, width)
        return table[down * (2 * width - 1) + right].transpose(2, 0, 1)[None]

    def _scaled(self, length: int) -> np.ndarray:
        """Returns all distances along an axis, `(2 x length - 1,)`, on the logarithmic scale."""
        distances = np.arange(1 - length, length, dtype=np.float32)
        distances *= np.float32(8 / max((self.pretrained or length) - 1, 1))
        return np.sign(distances) * np.log2(np.abs(distances) + 1) / np.float32(3)


class WindowAttention(swin.WindowAttention):
    """Cosine attention between the tokens of windows: `(batch, height, width, channels)` to the same shape.

    Args:
        width: Number of channels of a token.
        heads: Number of attention heads.
        window: Side of a window, in tokens.
        shifts: As for `swin.WindowAttention`.
        pretrained: As for `Shape`.
        rngs: Source of the initial parameters.
    """

    shrinks = True

    def __init__(
        self, width: int, heads: int, window: int, shifts: bool, pretrained: int, rngs: nnx.Rngs
    ) -> None:
        self.pretrained = pretrained
        super().__init__(width, heads, window, shifts, rngs, bias="qv")

    def position_bias(self, height: int, width: int) -> jax.Array:
        return self.positions(height, width)

    def inputs(self, x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        query, key, value = super().inputs(x)
        # Dot products are divided by the root of the number of channels, which cosines are not.
        scale = jnp.exp(jnp.minimum(self.logit_scale[...], math.log(100))) * math.sqrt(query.shape[-1])
        return (_unit(query) * scale[:, None]).astype(x.dtype), _unit(key).astype(x.dtype), value

    def _add_positions(self, heads: int, rngs: nnx.Rngs) -> None:
        self.logit_scale = nnx.Param(constant(math.log(10))(rngs.params(), (heads,)))
        self.positions = PositionBias(heads, self.pretrained, rngs)


def _unit(x: jax.Array) -> jax.Array:
    """Returns vectors scaled to unit length, in at least float32."""
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    # The root of a sum of squares has no gradient at zero vectors, which padding makes.
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(x * x, -1, keepdims=True), 1e-24))


class Block(nnx.Module):
    """A residual attention and a residual two-layer perceptron, each followed by a normalization.

    It maps `(batch, height, width, channels)` to the same shape.
    """

    def __init__(self, attention: nnx.Module, width: int, drop_path: float, rngs: nnx.Rngs) -> None:
        self.attn = attention
        self.norm1 = LayerNorm(width, epsilon=_EPSILON, rngs=rngs)
        self.fc1 = Linear(width, 4 * width, rngs=rngs)
        self.fc2 = Linear(4 * width, width, rngs=rngs)
        self.norm2 = LayerNorm(width, epsilon=_EPSILON, rngs=rngs)
        self.drop_path = DropPath(drop_path)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        x = x + self.drop_path(self.norm1(self.attn(x)), rngs=rngs)
        return x + self.drop_path(self.norm2(self.fc2(gelu(self.fc1(x)))), rngs=rngs)


def build(shape: Shape, setting: Setting) -> Backbone:
    """Builds the blocks `patch_embed`, `layers.0.blocks.0` …, `layers.1.downsample`, …, `norm`, `pre_logits`.

    The backbone maps images `(batch, height, width, channels)` to features `(batch, 8 x shape.width)`.
    """
    rngs, width, index = setting.rngs, shape.width, 0
    blocks: dict[str, nnx.Module] = {"patch_embed": swin.Embed(setting.channels, width, rngs)}
    for stage, (depth, heads) in enumerate(zip(shape.depths, shape.heads, strict=True)):
        if stage:
            blocks[f"layers.{stage}.downsample"] = swin.Merge(width, rngs, norm_last=True)
            width *= 2
        for repeat in range(depth):
            shifts, pretrained = repeat % 2 == 1, shape.pretrained[stage]
            attention = WindowAttention(width, heads, shape.window, shifts, pretrained, rngs)
            rate = setting.drop_path * index / (sum(shape.depths) - 1)
            blocks[f"layers.{stage}.blocks.{repeat}"] = Block(attention, width, rate, rngs)
            index += 1
    blocks["norm"] = Norm(width, _EPSILON, rngs)
    blocks[PRE_LOGITS] = GlobalPool()
    return Backbone(blocks, width)


_PERCEPTRON = {"hidden": 0, "heads": 2}


def _timm(shape: Shape, path: tuple[str, ...]) -> str | LibraryLayer | None:
    match path:
        case ("head", "classifier"):
            return "head.fc"
        case ("backbone", block, "attn", "positions", layer):
            return f"{block}.attn.cpb_mlp.{_PERCEPTRON[layer]}"
        case ("backbone", block, "attn", "logit_scale"):
            return LibraryLayer((f"{block}.attn.logit_scale",), trailing=2)
    return timm_layer(path)


def _torchvision(shape: Shape, path: tuple[str, ...]) -> str | LibraryLayer | None:
    """Returns the layer names of torchvision, where the bias of the keys exists, but is not used."""
    match path:
        case ("backbone", _, "attn", "positions", layer):
            return f"{swin.torchvision(shape, path[:3])}.cpb_mlp.{_PERCEPTRON[layer]}"
        case ("backbone", _, "attn", "logit_scale"):
            return LibraryLayer((f"{swin.torchvision(shape, path[:3])}.logit_scale",), trailing=2)
        case ("backbone", _, "attn", "q_bias" | "v_bias" as name):
            module = f"{swin.torchvision(shape, path[:3])}.qkv.bias"
            return LibraryLayer((module,), part=(0 if name == "q_bias" else 2, 3))
    return swin.torchvision(shape, path)


_LAYERS = {
    "norm1": "layernorm_before",
    "attn/qkv": tuple(f"attention.self.{name}" for name in ("query", "key", "value")),
    "attn/q_bias": "attention.self.query.bias",
    "attn/v_bias": "attention.self.value.bias",
    "attn/positions/hidden": "attention.self.continuous_position_bias_mlp.0",
    "attn/positions/heads": "attention.self.continuous_position_bias_mlp.2",
    "attn/logit_scale": "attention.self.logit_scale",
    "attn/proj": "attention.output.dense",
    "norm2": "layernorm_after",
    "fc1": "intermediate.dense",
    "fc2": "output.dense",
}


def _transformers(shape: Shape, path: tuple[str, ...]) -> str | LibraryLayer | None:
    """Returns the layer names of Hugging Face."""
    match path:
        case ("backbone", block, *layers) if ".blocks." in block:
            layer = layer_of(_LAYERS, layers, f"encoder.{block}")
            return dataclasses.replace(layer, trailing=2) if layer and layers[-1] == "logit_scale" else layer
    return swin.transformers(shape, path)


_SIZES = {
    "tiny": ((2, 2, 6, 2), (3, 6, 12, 24), 96),
    "small": ((2, 2, 18, 2), (3, 6, 12, 24), 96),
    "base": ((2, 2, 18, 2), (4, 8, 16, 32), 128),
    "large": ((2, 2, 18, 2), (6, 12, 24, 48), 192),
}
_PRETRAINED = (12, 12, 12, 6)
_SHAPES = {
    **{
        f"swinv2_{size}_window{window}_256": Shape(*_SIZES[size], window)
        for size in ("tiny", "small", "base")
        for window in (8, 16)
    },
    **{
        f"swinv2_{size}_window{name}": Shape(*_SIZES[size], window, pretrained)
        for size in ("base", "large")
        for name, window, pretrained in (
            ("12_192", 12, (0, 0, 0, 0)),
            ("12to16_192to256", 16, _PRETRAINED),
            ("12to24_192to384", 24, _PRETRAINED),
        )
    },
}


def _variant(name: str, shape: Shape) -> Variant:
    size = int(name.rpartition("_")[2].rpartition("to")[2])
    preprocessing = Preprocessing(
        image_size=size, crop_fraction=1.0 if size == 384 else 0.9, mean=IMAGENET_MEAN, std=IMAGENET_STD
    )
    return Variant(shape=shape, preprocessing=preprocessing)


FAMILY = Family(
    name="swinv2",
    variants={name: _variant(name, shape) for name, shape in _SHAPES.items()},
    build=build,
    layer_names={
        "timm": _timm,
        "torchvision": _torchvision,
        "transformers": with_prefix("swinv2", _transformers, classifier="classifier"),
        "transformers-base": _transformers,
    },
)
