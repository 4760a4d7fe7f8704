"""MobileNetV4: convolutional small, medium and large, and the hybrids with attention.

Source: Qin et al. 2024, arXiv:2404.10518. The names of networks are timm's: `…_050` has half the channels,
`…_aa_…` and `…_blur_…` filter the image in place of a stride. Blocks have timm's names, except for `top`.
"""

import dataclasses

import jax
from flax import nnx

from transfer_jax.models.backbone import PRE_LOGITS, Backbone
from transfer_jax.models.family import HALF, IMAGENET_MEAN, IMAGENET_STD, Family, Setting, Variant
from transfer_jax.models.mbconv import MBConv, Style, round_channels, timm_layer
from transfer_jax.models.mobilenetv4_blocks import (
    Attention,
    AttentionBlock,
    Block,
    Fused,
    Inverted,
    Plain,
    PooledConvNorm,
    UniversalInverted,
)
from transfer_jax.models.preprocessing import Preprocessing
from transfer_jax.nn.activations import gelu
from transfer_jax.nn.layers import Identity

_HIDDEN = 1280


@dataclasses.dataclass(frozen=True)
class Shape:
    """The sizes of a MobileNetV4.

    Attributes:
        stem: Number of channels of the stem.
        stages: Number of channels and blocks of each stage. The first block of a stage has stride 2.
        top: Number of channels of the last convolution before the pooling.
        scaled: Whether residual branches have a learned scale per channel.
        smooth: Whether the activation is GELU; otherwise ReLU.
        downsampling: Method of halving the image, as for `Style`.
    """

    stem: int
    stages: tuple[tuple[int, tuple[Block, ...]], ...]
    top: int = 960
    scaled: bool = False
    smooth: bool = False
    downsampling: str = "stride"

    def block(self, name: str) -> Block:
        """Returns the block `blocks.0.0` …."""
        _, stage, repeat = name.split(".")
        return self.stages[int(stage)][1][int(repeat)]


def build(shape: Shape, setting: Setting) -> Backbone:
    """Builds the blocks `stem`, `blocks.0.0` …, `top`, `conv_head`, `pre_logits`.

    The backbone maps images `(batch, height, width, channels)` to features `(batch, 1280)`.
    """
    plain = Style(activation=gelu if shape.smooth else jax.nn.relu)
    style = dataclasses.replace(plain, downsampling=shape.downsampling)
    active, rngs, features, index = plain.activation, setting.rngs, shape.stem, 0
    total = sum(len(stage) for _, stage in shape.stages)
    blocks: dict[str, nnx.Module] = {
        "stem": plain.conv(setting.channels, features, 3, strides=2, activation=active, rngs=rngs)
    }
    for number, (channels, stage) in enumerate(shape.stages):
        for repeat, block in enumerate(stage):
            options = {"style": style, "drop_path": setting.drop_path * index / total, "rngs": rngs}
            strides, out = 1 if repeat else 2, channels
            match block:
                case Plain():
                    out = block.channels or channels
                    made = style.conv(
                        features, out, block.kernel_size, strides=strides, activation=active, rngs=rngs
                    )
                case Fused():
                    made = MBConv(
                        features, out, 3, strides, round_channels(4 * features), fused=True, **options
                    )
                case Inverted():
                    made = UniversalInverted(
                        block, features, out, strides=strides, scaled=shape.scaled, **options
                    )
                case Attention():
                    made = AttentionBlock(block, features, **options)
            blocks[f"blocks.{number}.{repeat}"] = made
            features, index = out, index + 1
    blocks["top"] = plain.conv(features, shape.top, activation=active, rngs=rngs)
    blocks["conv_head"] = PooledConvNorm(shape.top, _HIDDEN, activation=active, rngs=rngs)
    blocks[PRE_LOGITS] = Identity()
    return Backbone(blocks, _HIDDEN)


def _timm(shape: Shape, path: tuple[str, ...]) -> str | None:
    match path:
        case ("head", "classifier"):
            return "classifier"
        case ("backbone", "stem", layer):
            return "conv_stem" if layer == "conv" else "bn1"
        case ("backbone", "conv_head", layer):
            return "conv_head" if layer == "conv" else "norm_head"
        case ("backbone", block, "scale", "gamma"):
            return f"{block}.layer_scale.gamma"
        case ("backbone", block, "attn", part, *layers):
            name, _, down = part.partition("_")
            inside = ("down_conv" if layers == ["conv"] else "norm") if down else "proj"
            return f"{block}.attn.{name}.{inside}"
        case ("backbone", "top", layer):
            return f"blocks.{len(shape.stages)}.0.{'conv' if layer == 'conv' else 'bn1'}"
        case ("backbone", block, layer):
            known = "norm" if isinstance(shape.block(block), Attention) else "bn1"
            return f"{block}.{'conv' if layer == 'conv' else known}"
        case ("backbone", block, part, layer):
            if isinstance(shape.block(block), Fused):
                return f"{block}.{timm_layer(('fused', 'project'), part, layer)}"
            return f"{block}.{_PARTS[part]}.{'conv' if layer == 'conv' else 'bn'}"
    return None


_PARTS = {"start": "dw_start", "expand": "pw_exp", "middle": "dw_mid", "project": "pw_proj"}


def _small(width: float) -> Shape:
    def scaled(channels: int) -> int:
        return round_channels(channels * width)

    stages = (
        (scaled(32), (Plain(3), Plain(1))),
        (scaled(64), (Plain(3, scaled(96)), Plain(1))),
        (scaled(96), (Inverted(5, 5, 3), *(Inverted(0, 3, 2),) * 4, Inverted(3, 0, 4))),
        (
            scaled(128),
            (
                *(Inverted(3, 3, 6), Inverted(5, 5, 4), Inverted(0, 5, 4), Inverted(0, 5, 3)),
                *(Inverted(0, 3, 4),) * 2,
            ),
        ),
    )
    return Shape(32, stages, scaled(960))


_MEDIUM = (
    (48, (Fused(),)),
    (80, (Inverted(3, 5, 4), Inverted(3, 3, 2))),
    (
        160,
        (
            *(Inverted(3, 5, 6), Inverted(3, 3, 4), Inverted(3, 3, 4), Inverted(3, 5, 4), Inverted(3, 3, 4)),
            *(Inverted(3, 0, 4), Inverted(0, 0, 2), Inverted(3, 0, 4)),
        ),
    ),
    (
        256,
        (
            *(Inverted(5, 5, 6), Inverted(5, 5, 4), Inverted(3, 5, 4), Inverted(3, 5, 4), Inverted(0, 0, 4)),
            *(Inverted(3, 0, 4), Inverted(3, 5, 2), Inverted(5, 5, 4), Inverted(0, 0, 4), Inverted(0, 0, 4)),
            Inverted(5, 0, 2),
        ),
    ),
)
_LARGE_END = (
    *(Inverted(5, 5, 4),) * 4,
    *(Inverted(5, 0, 4), Inverted(5, 3, 4), Inverted(5, 0, 4), Inverted(5, 0, 4)),
    *(Inverted(5, 3, 4), Inverted(5, 5, 4)),
)
_LARGE_MIDDLE = (Inverted(3, 5, 4), *(Inverted(3, 3, 4),) * 3, Inverted(3, 5, 4))
_LARGE = (
    (48, (Fused(),)),
    (96, (Inverted(3, 5, 4), Inverted(3, 3, 4))),
    (192, (*_LARGE_MIDDLE, *(Inverted(5, 3, 4),) * 5, Inverted(3, 0, 4))),
    (512, (*_LARGE_END, *(Inverted(5, 0, 4),) * 3)),
)
_HYBRID_MEDIUM = (
    *_MEDIUM[:2],
    (
        160,
        (
            *(Inverted(3, 5, 6), Inverted(0, 0, 2), Inverted(3, 3, 4), Inverted(3, 5, 4)),
            *(Attention(4, 64, 2), Inverted(3, 3, 4), Attention(4, 64, 2), Inverted(3, 0, 4)) * 2,
        ),
    ),
    (
        256,
        (
            *(Inverted(5, 5, 6), Inverted(5, 5, 4), Inverted(3, 5, 4), Inverted(3, 5, 4), Inverted(0, 0, 2)),
            *(Inverted(3, 5, 2), Inverted(0, 0, 2), Inverted(0, 0, 4)),
            *(Attention(4, 64), Inverted(3, 0, 4), Attention(4, 64), Inverted(5, 5, 4)),
            *(Attention(4, 64), Inverted(5, 0, 4)) * 2,
        ),
    ),
)
_HYBRID_LARGE = (
    *_LARGE[:2],
    (
        192,
        (
            *(*_LARGE_MIDDLE, *(Inverted(5, 3, 4),) * 2),
            *(Attention(8, 48, 2), Inverted(5, 3, 4)) * 3,
            *(Attention(8, 48, 2), Inverted(3, 0, 4)),
        ),
    ),
    (512, (*_LARGE_END, *(Attention(8, 64), Inverted(5, 0, 4)) * 4)),
)


def _variant(shape: Shape, size: int, crop: float = 0.95, *, half: bool = False) -> Variant:
    expected = Preprocessing(
        image_size=size,
        crop_fraction=crop,
        mean=HALF if half else IMAGENET_MEAN,
        std=HALF if half else IMAGENET_STD,
    )
    return Variant(shape=shape, preprocessing=expected, dropout=0.2)


FAMILY = Family(
    name="mobilenetv4",
    variants={
        "mobilenetv4_conv_small": _variant(_small(1.0), 224, 0.875),
        "mobilenetv4_conv_small_050": _variant(_small(0.5), 224, 0.875, half=True),
        "mobilenetv4_conv_medium": _variant(Shape(32, _MEDIUM), 256),
        "mobilenetv4_conv_large": _variant(Shape(24, _LARGE), 384),
        "mobilenetv4_hybrid_medium": _variant(Shape(32, _HYBRID_MEDIUM, scaled=True), 256),
        "mobilenetv4_hybrid_large": _variant(Shape(24, _HYBRID_LARGE, scaled=True, smooth=True), 384),
        "mobilenetv4_conv_blur_medium": _variant(Shape(32, _MEDIUM, downsampling="blur"), 224),
        "mobilenetv4_conv_aa_large": _variant(Shape(24, _LARGE, downsampling="average"), 448),
    },
    build=build,
    layer_names={"timm": _timm},
)
