"""MaxViT pico to extra large: inverted residual blocks, attention in windows, and attention in a grid.

Source: Tu et al. 2022, arXiv:2204.01697. The names of blocks and networks are timm's. Windows and grids grow
with the images: their side is a 32nd of the image's, as in timm.
"""

from collections.abc import Callable

import jax
from flax import nnx

from transfer_jax.models.backbone import PRE_LOGITS, Backbone
from transfer_jax.models.family import HALF, Family, LibraryLayer, Setting, Variant
from transfer_jax.models.maxvit_layers import (
    Hidden,
    InvertedResidual,
    PooledNorm,
    RelativeAttention,
    Shape,
    Stem,
    timm_layer,
    timm_outside,
)
from transfer_jax.models.preprocessing import Preprocessing
from transfer_jax.models.transformer import Norm, TransformerBlock
from transfer_jax.nn.activations import gelu_tanh
from transfer_jax.nn.layers import GlobalPool, Identity

STRIDE = 32
"""Pixels between tokens of the last stage; the side of images is a multiple of it."""


class PartitionAttention(RelativeAttention):
    """Attention between the tokens of a window or, with `strided`, between tokens at equal distances.

    It maps `(batch, height, width, channels)` to the same shape. Windows have `side` x `side` tokens.
    """

    def __init__(self, width: int, side: int, strided: bool, shape: Shape, rngs: nnx.Rngs) -> None:
        super().__init__(width, width, side, shape, rngs)
        self.strided = strided

    def __call__(self, x: jax.Array) -> jax.Array:  # pyright: ignore[reportIncompatibleMethodOverride]
        batch, height, width, features = x.shape
        down, right, side = height // self.side, width // self.side, self.side
        shape = (side, down, side, right) if self.strided else (down, side, right, side)
        order = (0, 2, 4, 1, 3, 5) if self.strided else (0, 1, 3, 2, 4, 5)
        x = x.reshape(batch, *shape, features).transpose(order)
        x = super().__call__(x.reshape(-1, side, side, features)).reshape(x.shape)
        back = (0, 3, 1, 4, 2, 5) if self.strided else (0, 1, 3, 2, 4, 5)
        return x.transpose(back).reshape(batch, height, width, features)


class Block(nnx.Module):
    """An inverted residual block, a transformer block in windows, and one in a grid.

    It maps `(batch, height, width, in_features)` to `(batch, height, width, features)`. Height and width are
    halved if `strides` is 2.
    """

    def __init__(
        self,
        in_features: int,
        features: int,
        strides: int,
        side: int,
        shape: Shape,
        drop_path: float,
        rngs: nnx.Rngs,
    ) -> None:
        self.conv = InvertedResidual(in_features, features, strides, shape, drop_path, rngs)
        self.attn_block, self.attn_grid = (
            TransformerBlock(
                PartitionAttention(features, side, grid, shape, rngs),
                features,
                activation=shape.attention_activation,
                epsilon=shape.epsilon,
                layer_scale=shape.layer_scale,
                drop_path=drop_path,
                ndim=4,
                rngs=rngs,
            )
            for grid in (False, True)
        )

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        x = self.conv(x, rngs=rngs)
        return self.attn_grid(self.attn_block(x, rngs=rngs), rngs=rngs)


BlockOf = Callable[[int, int, int, int, float], nnx.Module]
"""A function from stage, numbers of channels, strides and rate of stochastic depth to a block."""


def build_with(shape: Shape, setting: Setting, block_of: BlockOf) -> Backbone:
    """Builds the blocks `stem`, `stages.0.blocks.0` …, `norm`, `pre_logits`, and `hidden` if there is one.

    Raises:
        ValueError: If the image size is not a multiple of 32 pixels.
    """
    if setting.image_size % STRIDE:
        raise ValueError(f"image_size must be a multiple of {STRIDE} pixels, got {setting.image_size}")
    rngs, features, index = setting.rngs, shape.stem[-1], 0
    blocks: dict[str, nnx.Module] = {"stem": Stem(setting.channels, shape, rngs)}
    for stage, (depth, width) in enumerate(zip(shape.depths, shape.widths, strict=True)):
        for repeat in range(depth):
            rate = setting.drop_path * index / max(sum(shape.depths) - 1, 1)
            strides = 1 if repeat else 2
            blocks[f"stages.{stage}.blocks.{repeat}"] = block_of(stage, features, width, strides, rate)
            features, index = width, index + 1
    if shape.hidden:
        blocks["norm"] = PooledNorm(features, shape.epsilon, rngs)
        blocks["hidden"] = Hidden(features, shape.hidden, rngs)
        return Backbone({**blocks, PRE_LOGITS: Identity()}, shape.hidden)
    blocks["norm"] = Norm(features, shape.epsilon, rngs)
    return Backbone({**blocks, PRE_LOGITS: GlobalPool()}, features)


def build(shape: Shape, setting: Setting) -> Backbone:
    """Builds a MaxViT; see `build_with` for the blocks and what is raised."""
    side = setting.image_size // STRIDE

    def block_of(stage: int, in_features: int, features: int, strides: int, rate: float) -> nnx.Module:
        return Block(in_features, features, strides, side, shape, rate, setting.rngs)

    return build_with(shape, setting, block_of)


def _timm(shape: Shape, path: tuple[str, ...]) -> str | LibraryLayer | None:
    match path:
        case ("backbone", block, "conv" | "attn_block" | "attn_grid" as part, *layers):
            return f"{block}.{part}.{timm_layer(shape, tuple(layers))}"
    return timm_outside(shape, path)


def variant_of_size(name: str, shape: Shape) -> Variant:
    """Returns the variant of a network whose name ends in the size of its images."""
    size = int(name.rpartition("_")[2])
    preprocessing = Preprocessing(
        image_size=size, crop_fraction=1.0 if size >= 384 else 0.95, mean=HALF, std=HALF
    )
    return Variant(shape=shape, preprocessing=preprocessing)


_WIDTHS = {wide: (wide, 2 * wide, 4 * wide, 8 * wide) for wide in (32, 64, 96, 128, 192)}
_SHORT, _LONG = (2, 2, 5, 2), (2, 6, 14, 2)


def _tf(width: int, depths: tuple[int, int, int, int], stem: int) -> Shape:
    return Shape(
        depths=depths,
        widths=_WIDTHS[width],
        stem=(stem, stem),
        hidden=8 * width,
        activation=gelu_tanh,
        attention_activation=gelu_tanh,
        ratio=0.25,
        same=True,
        conv_epsilon=1e-3,
        epsilon=1e-5,
        of_output=True,
        stem_bias=True,
        conv_bias=True,
        positions="tf",
        heads_first=False,
    )


_TF = {
    "tiny": _tf(64, _SHORT, 64),
    "small": _tf(96, _SHORT, 64),
    "base": _tf(96, _LONG, 64),
    "large": _tf(128, _LONG, 128),
    "xlarge": _tf(192, _LONG, 192),
}
_NANO = {"depths": (1, 2, 3, 1), "widths": _WIDTHS[64], "stem": (32, 64)}
_TINY = {"depths": _SHORT, "widths": _WIDTHS[64], "stem": (32, 64)}
_BASE = Shape(depths=_LONG, widths=_WIDTHS[96], stem=(32, 64), hidden=768, positions=512)
_RW = {
    "maxvit_nano_rw_256": Shape(**_NANO),
    "maxvit_tiny_rw_224": Shape(**_TINY),
    "maxvit_rmlp_pico_rw_256": Shape(depths=_SHORT, widths=_WIDTHS[32], stem=(24, 32), positions=512),
    "maxvit_rmlp_nano_rw_256": Shape(**_NANO, positions=512),
    "maxvit_rmlp_tiny_rw_256": Shape(**_TINY, positions=512),
    "maxvit_rmlp_small_rw_224": Shape(
        depths=_SHORT, widths=_WIDTHS[96], stem=(32, 64), positions=512, layer_scale=True
    ),
    "maxvit_rmlp_base_rw_224": _BASE,
    "maxvit_rmlp_base_rw_384": _BASE,
}
_SHAPES = {
    **{f"maxvit_{name}_tf_{size}": shape for name, shape in _TF.items() for size in (224, 384, 512)},
    **_RW,
}

FAMILY = Family(
    name="maxvit",
    variants={name: variant_of_size(name, shape) for name, shape in _SHAPES.items()},
    build=build,
    layer_names={"timm": _timm},
)
