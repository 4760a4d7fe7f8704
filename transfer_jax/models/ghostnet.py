"""GhostNet and GhostNetV2, with the names of timm.

Sources: Han et al. 2019, arXiv:1911.11907: half of the channels of a layer come from a depthwise convolution
of the other half; Tang et al. 2022, arXiv:2211.12905 (V2: channels are weighted by long horizontal and
vertical convolutions at half the resolution). Blocks have timm's names, except for `top`.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from transfer_jax.models.backbone import PRE_LOGITS, Backbone
from transfer_jax.models.family import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Family,
    LibraryLayer,
    Setting,
    Variant,
)
from transfer_jax.models.mbconv import SqueezeExcite, Style
from transfer_jax.models.preprocessing import Preprocessing
from transfer_jax.nn.activations import Activation
from transfer_jax.nn.layers import ConvNorm, DropPath, Identity, Linear

_HIDDEN = 1280
_STYLE = Style(activation=jax.nn.relu, gate=jax.nn.hard_sigmoid, squeeze=jax.nn.relu)


@dataclasses.dataclass(frozen=True)
class Shape:
    """The sizes of a GhostNet.

    Attributes:
        width: Factor of the numbers of channels.
        v2: Whether it is a GhostNetV2.
    """

    width: float
    v2: bool

    def channels(self, channels: int) -> int:
        """Returns a number of channels times the width, as a multiple of 4."""
        return _multiple_of_4(channels * self.width)


class Ghost(nnx.Module):
    """A 1x1 convolution to half of the channels, and a depthwise convolution of it to the other half.

    It maps `(batch, height, width, in_features)` to `(batch, height, width, features)`.

    Args:
        in_features: Number of channels of the input.
        features: Number of channels of the output.
        activation: Activation of both halves; None for none.
        gated: Whether the output is weighted by convolutions of the input at half the resolution.
        rngs: Source of the initial parameters.
    """

    def __init__(
        self,
        in_features: int,
        features: int,
        activation: Activation | None,
        *,
        gated: bool = False,
        rngs: nnx.Rngs,
    ) -> None:
        half = -(-features // 2)
        self.primary = ConvNorm(in_features, half, activation=activation, rngs=rngs)
        self.cheap = ConvNorm(half, half, 3, padding=1, groups=half, activation=activation, rngs=rngs)
        self.gated, self.features = gated, features
        if gated:
            self.gate = ConvNorm(in_features, features, rngs=rngs)
            self.gate_rows = ConvNorm(features, features, (1, 5), groups=features, rngs=rngs)
            self.gate_columns = ConvNorm(features, features, (5, 1), groups=features, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        half = self.primary(x)
        y = jnp.concatenate([half, self.cheap(half)], axis=-1)[..., : self.features]
        if not self.gated:
            return y
        gate = self.gate_columns(self.gate_rows(self.gate(nnx.avg_pool(x, (2, 2), (2, 2)))))
        return y * enlarge(jax.nn.sigmoid(gate), y.shape[1], y.shape[2])


def enlarge(x: jax.Array, height: int, width: int) -> jax.Array:
    """Returns images of another size; each pixel is the nearest one above and to the left."""
    if (height, width) == (2 * x.shape[1], 2 * x.shape[2]):
        return x.repeat(2, axis=1).repeat(2, axis=2)
    rows, columns = (
        np.arange(new) * old // new for new, old in zip((height, width), x.shape[1:3], strict=True)
    )
    return x[:, rows][:, :, columns]


class GhostBottleneck(nnx.Module):
    """A residual block of two ghost modules, with a depthwise convolution in between if it has a stride.

    It maps `(batch, height, width, in_features)` to `(batch, height / strides, width / strides, features)`.
    """

    def __init__(
        self,
        in_features: int,
        wide: int,
        features: int,
        *,
        kernel_size: int,
        strides: int,
        squeezes: bool,
        gated: bool,
        drop_path: float,
        rngs: nnx.Rngs,
    ) -> None:
        strided = {"strides": strides, "padding": kernel_size // 2, "rngs": rngs}
        self.ghost1 = Ghost(in_features, wide, jax.nn.relu, gated=gated, rngs=rngs)
        self.depthwise = ConvNorm(wide, wide, kernel_size, groups=wide, **strided) if strides > 1 else None
        self.se = SqueezeExcite(wide, _multiple_of_4(wide / 4), _STYLE, rngs) if squeezes else None
        self.ghost2 = Ghost(wide, features, None, rngs=rngs)
        self.reshapes = strides > 1 or in_features != features
        if self.reshapes:
            self.shortcut1 = ConvNorm(in_features, in_features, kernel_size, groups=in_features, **strided)
            self.shortcut2 = ConvNorm(in_features, features, rngs=rngs)
        self.drop_path = DropPath(drop_path)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        y = self.ghost1(x)
        for layer in (self.depthwise, self.se, self.ghost2):
            y = y if layer is None else layer(y)
        if self.reshapes:
            x = self.shortcut2(self.shortcut1(x))
        return x + self.drop_path(y, rngs=rngs)


class PooledDense(nnx.Module):
    """Global pooling, a dense layer and a ReLU: `(batch, height, width, channels)` to `(batch, features)`."""

    def __init__(self, in_features: int, features: int, rngs: nnx.Rngs) -> None:
        self.dense = Linear(in_features, features, rngs=rngs)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        return jax.nn.relu(self.dense(x.mean(axis=(1, 2))))


def build(shape: Shape, setting: Setting) -> Backbone:
    """Builds the blocks `stem`, `blocks.0.0` …, `top`, `conv_head`, `pre_logits`.

    The backbone maps images `(batch, height, width, channels)` to features `(batch, 1280)`.
    """
    rngs, features, index = setting.rngs, shape.channels(16), 0
    total = sum(map(len, _STAGES))
    blocks: dict[str, nnx.Module] = {
        "stem": ConvNorm(
            setting.channels, features, 3, strides=2, padding=1, activation=jax.nn.relu, rngs=rngs
        )
    }
    for number, stage in enumerate(_STAGES):
        for repeat, (kernel_size, wide, channels, squeezes, strides) in enumerate(stage):
            blocks[f"blocks.{number}.{repeat}"] = GhostBottleneck(
                features,
                shape.channels(wide),
                shape.channels(channels),
                kernel_size=kernel_size,
                strides=strides,
                squeezes=squeezes,
                gated=shape.v2 and index > 1,
                drop_path=setting.drop_path * index / (total - 1),
                rngs=rngs,
            )
            features, index = shape.channels(channels), index + 1
    top = shape.channels(_STAGES[-1][-1][1])
    blocks["top"] = ConvNorm(features, top, activation=jax.nn.relu, rngs=rngs)
    blocks["conv_head"] = PooledDense(top, _HIDDEN, rngs)
    blocks[PRE_LOGITS] = Identity()
    return Backbone(blocks, _HIDDEN)


def _timm(shape: Shape, path: tuple[str, ...]) -> str | LibraryLayer | None:
    match path:
        case ("head", "classifier"):
            return "classifier"
        case ("backbone", "stem", layer):
            return "conv_stem" if layer == "conv" else "bn1"
        case ("backbone", "top", layer):
            return f"blocks.{len(_STAGES)}.0.{'conv' if layer == 'conv' else 'bn1'}"
        case ("backbone", "conv_head", "dense"):
            top = shape.channels(_STAGES[-1][-1][1])
            return LibraryLayer(("conv_head",), view=(1, 1, top), flat=False)
        case ("backbone", block, "depthwise", layer):
            return f"{block}.{'conv_dw' if layer == 'conv' else 'bn_dw'}"
        case ("backbone", block, "se", layer):
            return f"{block}.se.conv_{layer}"
        case ("backbone", block, "shortcut1" | "shortcut2" as part, layer):
            return f"{block}.shortcut.{2 * (part == 'shortcut2') + (layer == 'norm')}"
        case ("backbone", block, ghost, part, layer):
            module, first = _PARTS[part]
            return f"{block}.{ghost}.{module}.{first + (layer == 'norm')}"
    return None


_PARTS = {
    "primary": ("primary_conv", 0),
    "cheap": ("cheap_operation", 0),
    "gate": ("short_conv", 0),
    "gate_rows": ("short_conv", 2),
    "gate_columns": ("short_conv", 4),
}
# (side of the depthwise kernel, inner channels, channels, squeeze-and-excitation, strides) of each block
_STAGES = (
    ((3, 16, 16, False, 1),),
    ((3, 48, 24, False, 2),),
    ((3, 72, 24, False, 1),),
    ((5, 72, 40, True, 2),),
    ((5, 120, 40, True, 1),),
    ((3, 240, 80, False, 2),),
    (
        (3, 200, 80, False, 1),
        (3, 184, 80, False, 1),
        (3, 184, 80, False, 1),
        (3, 480, 112, True, 1),
        (3, 672, 112, True, 1),
    ),
    ((5, 672, 160, True, 2),),
    (
        (5, 960, 160, False, 1),
        (5, 960, 160, True, 1),
        (5, 960, 160, False, 1),
        (5, 960, 160, True, 1),
    ),
)


def _multiple_of_4(channels: float) -> int:
    """Rounds a number of channels to a multiple of 4, and down by at most a tenth."""
    rounded = max(4, int(channels + 2) // 4 * 4)
    return rounded + 4 if rounded < 0.9 * channels else rounded


FAMILY = Family(
    name="ghostnet",
    variants={
        name: Variant(
            shape=Shape(width, v2),
            preprocessing=Preprocessing(mean=IMAGENET_MEAN, std=IMAGENET_STD),
            dropout=0.2,
        )
        for name, width, v2 in (
            ("ghostnetv2_100", 1.0, True),
            ("ghostnetv2_130", 1.3, True),
            ("ghostnetv2_160", 1.6, True),
            ("ghostnet_100", 1.0, False),
        )
    },
    build=build,
    layer_names={"timm": _timm},
)
