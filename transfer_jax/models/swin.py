"""Swin transformers tiny, small, base and large.

Source: Liu et al. 2021, arXiv:2103.14030. The names of blocks and networks are timm's. Images can have any
size, as in torchvision: an image whose size is not a multiple of the windows is padded with zeros at the
right and the bottom, before the shift. timm shifts first, so results are equal if no padding is needed.
Weights for other windows are resampled as in the authors' code.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from transfer_jax.models.attention import Attention, Bias
from transfer_jax.models.backbone import PRE_LOGITS, Backbone
from transfer_jax.models.family import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Family,
    LibraryLayer,
    Resampling,
    Setting,
    Variant,
    with_prefix,
)
from transfer_jax.models.preprocessing import Preprocessing
from transfer_jax.models.transformer import Norm, TransformerBlock, layer_of, timm_layer
from transfer_jax.nn.initializers import normal
from transfer_jax.nn.layers import Conv, GlobalPool, LayerNorm, Linear

_EPSILON = 1e-5


@dataclasses.dataclass(frozen=True)
class Shape:
    """The sizes of a Swin transformer.

    Attributes:
        depths: Number of blocks of each stage.
        heads: Number of attention heads of each stage.
        width: Number of channels of the first stage; each later stage has twice as many.
        window: Side of the windows, in tokens.
    """

    depths: tuple[int, int, int, int]
    heads: tuple[int, int, int, int]
    width: int
    window: int = 7


class Embed(nnx.Module):
    """Normalized 4x4 patches of images: `(batch, height, …, channels)` to `(batch, height / 4, …, width)`."""

    def __init__(self, channels: int, width: int, rngs: nnx.Rngs) -> None:
        self.proj = Conv(channels, width, 4, strides=4, padding="VALID", use_bias=True, rngs=rngs)
        self.norm = LayerNorm(width, epsilon=_EPSILON, rngs=rngs)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        return self.norm(self.proj(x))


class Merge(nnx.Module):
    """A concatenation of 2x2 tokens and a linear layer.

    It maps `(batch, height, width, in_features)` to `(batch, height / 2, width / 2, 2 x in_features)`. The
    tokens are concatenated in the order upper left, lower left, upper right, lower right. They are normalized
    before the linear layer or, with `norm_last`, after it.
    """

    def __init__(self, in_features: int, rngs: nnx.Rngs, *, norm_last: bool = False) -> None:
        self.norm = LayerNorm((2 if norm_last else 4) * in_features, epsilon=_EPSILON, rngs=rngs)
        self.reduction = Linear(4 * in_features, 2 * in_features, use_bias=False, rngs=rngs)
        self.norm_last = norm_last

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        x = _pad_to_multiple(x, (2, 2))
        batch, height, width, channels = x.shape
        x = x.reshape(batch, height // 2, 2, width // 2, 2, channels).transpose(0, 1, 3, 4, 2, 5)
        x = x.reshape(batch, height // 2, width // 2, 4 * channels)
        return self.norm(self.reduction(x)) if self.norm_last else self.reduction(self.norm(x))


class WindowAttention(Attention):
    """Attention between the tokens of square windows, with a learned bias that depends on their distance.

    It maps `(batch, height, width, channels)` to the same shape.

    Args:
        width: Number of channels of a token.
        heads: Number of attention heads.
        window: Side of a window, in tokens.
        shifts: Whether the windows are shifted by half a window to the right and down. There is no shift
            along an axis with one window. Tokens that become neighbors only by the shift do not attend to
            each other.
        rngs: Source of the initial parameters.
        bias: Inputs of the attention that have a bias.

    Attributes:
        shrinks: Whether windows shrink to the feature map where it is smaller; otherwise it is padded.
    """

    shrinks = False

    def __init__(
        self, width: int, heads: int, window: int, shifts: bool, rngs: nnx.Rngs, *, bias: Bias = "qkv"
    ) -> None:
        super().__init__(width, heads, rngs, bias=bias)
        self.window, self.shift = window, window // 2 if shifts else 0
        self._add_positions(heads, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:  # pyright: ignore[reportIncompatibleMethodOverride]
        sides = tuple(min(self.window, length) if self.shrinks else self.window for length in x.shape[1:3])
        (height, width), (down, right) = x.shape[1:3], sides
        x = _pad_to_multiple(x, sides)
        batch, high, wide, channels = x.shape
        lengths = (high, wide)
        shifts = tuple(self.shift if a > side else 0 for a, side in zip(lengths, sides, strict=True))
        bias = self.position_bias(*sides)
        if any(shifts):
            x = jnp.roll(x, (-shifts[0], -shifts[1]), axis=(1, 2))
            mask = _shift_mask(lengths, sides, shifts).astype(bias.dtype)
            bias = jnp.tile(bias + mask[:, None], (batch, 1, 1, 1))
        x = x.reshape(batch, high // down, down, wide // right, right, channels).transpose(0, 1, 3, 2, 4, 5)
        x = super().__call__(x.reshape(-1, down * right, channels), bias.astype(x.dtype))
        x = x.reshape(batch, high // down, wide // right, down, right, channels).transpose(0, 1, 3, 2, 4, 5)
        x = x.reshape(batch, high, wide, channels)
        if any(shifts):
            x = jnp.roll(x, shifts, axis=(1, 2))
        return x[:, :height, :width]

    def position_bias(self, height: int, width: int) -> jax.Array:
        """Returns the bias of each pair of tokens of a window, `(1, heads, tokens, tokens)`."""
        down, right = relative_positions(height, width)
        table = self.relative_position_bias_table[...]
        return table[down * (2 * self.window - 1) + right].transpose(2, 0, 1)[None]

    def _add_positions(self, heads: int, rngs: nnx.Rngs) -> None:
        """Adds the parameters that `position_bias` needs."""
        shape = ((2 * self.window - 1) ** 2, heads)
        self.relative_position_bias_table = nnx.Param(normal(0.02)(rngs.params(), shape))


def relative_positions(height: int, width: int) -> tuple[jax.Array, jax.Array]:
    """Returns the distance of each pair of tokens of a window, down and right, each `(tokens, tokens)`.

    The smallest distance, `1 - height` or `1 - width`, is numbered 0. The tables are computed by a traced
    function, which would contain NumPy's as large constants.
    """
    rows, columns = (lax.broadcasted_iota(np.int32, (height, width), axis).reshape(-1) for axis in (0, 1))
    return rows[:, None] - rows[None] + height - 1, columns[:, None] - columns[None] + width - 1


def _pad_to_multiple(x: jax.Array, sides: tuple[int, ...]) -> jax.Array:
    """Pads images with zeros at the right and the bottom, to multiples of a height and a width."""
    down, right = (-length % side for length, side in zip(x.shape[1:3], sides, strict=True))
    return jnp.pad(x, ((0, 0), (0, down), (0, right), (0, 0)))


def _shift_mask(lengths: tuple[int, ...], sides: tuple[int, ...], shifts: tuple[int, ...]) -> jax.Array:
    """Returns a large negative bias for tokens of a window that become neighbors only by the shift.

    Args:
        lengths: Height and width of the feature map, in tokens.
        sides: Height and width of the windows.
        shifts: Shift down and to the right.

    Returns:
        `(windows, tokens, tokens)`.
    """
    down, right = (
        (jnp.arange(length) >= length - shift) if shift else jnp.zeros(length, bool)
        for length, shift in zip(lengths, shifts, strict=True)
    )
    region = 2 * down[:, None] + right[None]
    (height, width), (high, wide) = lengths, sides
    region = region.reshape(height // high, high, width // wide, wide).transpose(0, 2, 1, 3)
    region = region.reshape(-1, high * wide)
    return jnp.where(region[:, :, None] == region[:, None], np.float32(0), np.float32(-100))


def build(shape: Shape, setting: Setting) -> Backbone:
    """Builds the blocks `patch_embed`, `layers.0.blocks.0` …, `layers.1.downsample`, …, `norm`, `pre_logits`.

    The backbone maps images `(batch, height, width, channels)` to features `(batch, 8 x shape.width)`.
    """
    rngs, width, index = setting.rngs, shape.width, 0
    blocks: dict[str, nnx.Module] = {"patch_embed": Embed(setting.channels, width, rngs)}
    for stage, (depth, heads) in enumerate(zip(shape.depths, shape.heads, strict=True)):
        if stage:
            blocks[f"layers.{stage}.downsample"] = Merge(width, rngs)
            width *= 2
        for repeat in range(depth):
            blocks[f"layers.{stage}.blocks.{repeat}"] = TransformerBlock(
                WindowAttention(width, heads, shape.window, repeat % 2 == 1, rngs),
                width,
                epsilon=_EPSILON,
                drop_path=setting.drop_path * index / (sum(shape.depths) - 1),
                ndim=4,
                rngs=rngs,
            )
            index += 1
    blocks["norm"] = Norm(width, _EPSILON, rngs)
    blocks[PRE_LOGITS] = GlobalPool()
    return Backbone(blocks, width)


def _timm(shape: Shape, path: tuple[str, ...]) -> str | None:
    return "head.fc" if path == ("head", "classifier") else timm_layer(path)


def torchvision(shape: Shape, path: tuple[str, ...]) -> str | None:
    """Returns the layer names of torchvision."""
    match path:
        case ("head", "classifier"):
            return "head"
        case ("backbone", "norm", "norm"):
            return "norm"
        case ("backbone", "patch_embed", layer):
            return f"features.0.{0 if layer == 'proj' else 2}"
        case ("backbone", block, *layers):
            _, stage, *rest = block.split(".")
            layer = {"fc1": "mlp.0", "fc2": "mlp.3"}.get(layers[0], ".".join(layers))
            if rest == ["downsample"]:
                return f"features.{2 * int(stage)}.{layer}"
            return f"features.{2 * int(stage) + 1}.{rest[1]}.{layer}"
    return None


_TABLE = "relative_position_bias_table"
_IN_FILES = {
    "norm1": "layernorm_before",
    "attn/qkv": tuple(f"attention.self.{name}" for name in ("query", "key", "value")),
    f"attn/{_TABLE}": f"attention.self.{_TABLE}",
    "attn/proj": "attention.output.dense",
    "norm2": "layernorm_after",
    "fc1": "intermediate.dense",
    "fc2": "output.dense",
}
_IN_MEMORY = {
    "norm1": "layernorm_before",
    "attn/qkv": tuple(f"attention.{name}_proj" for name in "qkv"),
    f"attn/{_TABLE}": f"attention.relative_position_bias.{_TABLE}",
    "attn/proj": "attention.o_proj",
    "norm2": "layernorm_after",
    "fc1": "mlp.fc1",
    "fc2": "mlp.fc2",
}


def transformers(shape: Shape, path: tuple[str, ...], *, files: bool = True) -> str | LibraryLayer | None:
    """Returns the layer names of Hugging Face, in its files or in a `state_dict` of transformers 5."""
    match path:
        case ("backbone", "norm", "norm"):
            return "layernorm"
        case ("backbone", "patch_embed", layer):
            return f"embeddings.{'patch_embeddings.projection' if layer == 'proj' else 'norm'}"
        case ("backbone", block, layer) if block.endswith("downsample"):
            return f"encoder.layers.{int(block.split('.')[1]) - 1}.downsample.{layer}"
        case ("backbone", block, *layers):
            return layer_of(_IN_FILES if files else _IN_MEMORY, layers, f"encoder.{block}")
    return None


_SHAPES = {
    "swin_tiny_patch4_window7_224": Shape((2, 2, 6, 2), (3, 6, 12, 24), 96),
    "swin_small_patch4_window7_224": Shape((2, 2, 18, 2), (3, 6, 12, 24), 96),
    "swin_base_patch4_window7_224": Shape((2, 2, 18, 2), (4, 8, 16, 32), 128),
    "swin_large_patch4_window7_224": Shape((2, 2, 18, 2), (6, 12, 24, 48), 192),
    "swin_base_patch4_window12_384": Shape((2, 2, 18, 2), (4, 8, 16, 32), 128, 12),
    "swin_large_patch4_window12_384": Shape((2, 2, 18, 2), (6, 12, 24, 48), 192, 12),
}


def _variant(name: str, shape: Shape) -> Variant:
    size = int(name.rpartition("_")[2])
    preprocessing = Preprocessing(
        image_size=size, crop_fraction=0.9 if size == 224 else 1.0, mean=IMAGENET_MEAN, std=IMAGENET_STD
    )
    return Variant(shape=shape, preprocessing=preprocessing, resampling=Resampling(antialias=False))


FAMILY = Family(
    name="swin",
    variants={name: _variant(name, shape) for name, shape in _SHAPES.items()},
    build=build,
    layer_names={
        "timm": _timm,
        "torchvision": torchvision,
        "transformers": with_prefix("swin", transformers, classifier="classifier"),
        "transformers-base": transformers,
        "transformers-5": with_prefix(
            "swin", functools.partial(transformers, files=False), classifier="classifier"
        ),
    },
)
