"""CoAtNet nano to 3: two stages of inverted residual blocks, and two of attention with relative positions.

Source: Dai et al. 2021, arXiv:2106.04803. The names of blocks and networks are those of timm, which trained
these weights (`rw`).
"""

import dataclasses

import jax
from flax import nnx

from transfer_jax.models.backbone import Backbone
from transfer_jax.models.family import Family, LibraryLayer, Setting
from transfer_jax.models.maxvit import STRIDE, build_with, variant_of_size
from transfer_jax.models.maxvit_layers import (
    InvertedResidual,
    RelativeAttention,
    Shape,
    pool,
    timm_layer,
    timm_outside,
)
from transfer_jax.models.transformer import TransformerBlock
from transfer_jax.nn.layers import Conv, LayerNorm

_CONVOLUTIONAL = 2
"""Number of stages of inverted residual blocks."""


class Block(TransformerBlock):
    """A transformer block on feature maps, which halves the height and the width if `strides` is 2.

    It maps `(batch, height, width, in_features)` to `(batch, height, width, features)`.
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
        super().__init__(
            RelativeAttention(in_features, features, side, shape, rngs),
            features,
            activation=shape.attention_activation,
            epsilon=shape.epsilon,
            layer_scale=shape.layer_scale,
            drop_path=drop_path,
            ndim=4,
            rngs=rngs,
        )
        self.strides, self.shape = strides, shape
        if strides == 2:
            self.norm1 = LayerNorm(in_features, epsilon=shape.epsilon, rngs=rngs)
            self.shortcut = Conv(in_features, features, use_bias=shape.shortcut_bias, rngs=rngs)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        if self.strides == 1:
            return super().__call__(x, rngs=rngs)
        y = self.attn(pool(self.norm1(x), self.shape))
        x = self.shortcut(pool(x, self.shape))
        x = x + self.drop_path(self.ls1(y) if self.scaled else y, rngs=rngs)
        y = self._perceptron(self.norm2(x))
        return x + self.drop_path(self.ls2(y) if self.scaled else y, rngs=rngs)


def build(shape: Shape, setting: Setting) -> Backbone:
    """Builds a CoAtNet; see `maxvit.build_with` for the blocks and what is raised."""

    def block_of(stage: int, in_features: int, features: int, strides: int, rate: float) -> nnx.Module:
        if stage < _CONVOLUTIONAL:
            return InvertedResidual(in_features, features, strides, shape, rate, setting.rngs)
        side = setting.image_size // STRIDE << (3 - stage)
        return Block(in_features, features, strides, side, shape, rate, setting.rngs)

    return build_with(shape, setting, block_of)


def _timm(shape: Shape, path: tuple[str, ...]) -> str | LibraryLayer | None:
    """Returns timm's names. Its linear layers of attention blocks are convolutions of 1x1 pixels."""
    match path:
        case ("backbone", block, *layers) if block.startswith("stages."):
            stage, repeat = int(block.split(".")[1]), int(block.split(".")[3])
            name = f"{block}.{timm_layer(shape, tuple(layers))}"
            if stage < _CONVOLUTIONAL:
                return name
            if layers == ["norm1"] and repeat == 0:
                return f"{name}.norm"
            width = shape.widths[stage]
            inputs = {
                ("attn", "qkv"): width if repeat else shape.widths[stage - 1],
                ("attn", "proj"): width if repeat else shape.widths[stage - 1],
                ("fc1",): width,
                ("fc2",): 4 * width,
            }.get(tuple(layers))
            return LibraryLayer((name,), view=(1, 1, inputs), flat=False) if inputs else name
    return timm_outside(shape, path)


def _shape(depths: tuple[int, int, int, int], width: int, stem: tuple[int, int], **options: object) -> Shape:
    widths = (width, 2 * width, 4 * width, 8 * width)
    return dataclasses.replace(
        Shape(depths=depths, widths=widths, stem=stem, ratio=0.25),
        **options,  # pyright: ignore[reportArgumentType]
    )


_NANO = ((3, 4, 6, 3), 64, (32, 64))
_ZERO = ((2, 3, 7, 2), 96, (32, 64))
_ONE = ((2, 6, 14, 2), 96, (32, 64))
_TWO = ((2, 6, 14, 2), 128, (64, 128))
_EARLY = {"early": True, "shortcut_bias": False, "squeeze": jax.nn.relu, "pre_activation": True}
_RMLP_TWO = _shape(*_TWO, pre_activation=True, layer_scale=True, positions=512)
_SHAPES = {
    "coatnet_nano_rw_224": _shape(*_NANO, pools=True, conv_bias=True),
    "coatnet_0_rw_224": _shape(*_ZERO, pools=True, **_EARLY),
    "coatnet_1_rw_224": _shape(*_ONE, **_EARLY),
    "coatnet_2_rw_224": _shape(*_TWO, pre_activation=True),
    "coatnet_3_rw_224": _shape((2, 6, 14, 2), 192, (96, 192), pre_activation=True, layer_scale=True),
    "coatnet_rmlp_nano_rw_224": _shape(*_NANO, conv_bias=True, positions=384),
    "coatnet_rmlp_1_rw_224": _shape(*_ONE, pools=True, max_pools=True, positions=384, **_EARLY),
    "coatnet_rmlp_1_rw2_224": _shape(*_ONE, pre_activation=True, squeeze=jax.nn.relu, positions=512),
    "coatnet_rmlp_2_rw_224": _RMLP_TWO,
    "coatnet_rmlp_2_rw_384": _RMLP_TWO,
}

FAMILY = Family(
    name="coatnet",
    variants={name: variant_of_size(name, shape) for name, shape in _SHAPES.items()},
    build=build,
    layer_names={"timm": _timm},
)
