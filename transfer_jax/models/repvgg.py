"""RepVGG, with the names of timm.

Source: Ding et al. 2021, arXiv:2101.03697. Each block is the sum of a 3x3 convolution, a 1x1 convolution and
its input, each with a normalization.
"""

import dataclasses

import jax
from flax import nnx

from transfer_jax.models.backbone import PRE_LOGITS, Backbone
from transfer_jax.models.family import IMAGENET_MEAN, IMAGENET_STD, Family, Setting, Variant
from transfer_jax.models.mbconv import SqueezeExcite, Style
from transfer_jax.models.parallel_convs import ParallelConvs
from transfer_jax.models.preprocessing import Preprocessing
from transfer_jax.nn.layers import DropPath, GlobalPool

_STYLE = Style(activation=jax.nn.relu, squeeze=jax.nn.relu)


@dataclasses.dataclass(frozen=True)
class Shape:
    """The sizes of a RepVGG.

    Attributes:
        depths: Number of blocks of each stage.
        widths: Number of channels of each stage.
        groups: Number of groups of every second block's convolutions.
        squeezes: Whether blocks have squeeze-and-excitation.
    """

    depths: tuple[int, int, int, int]
    widths: tuple[int, int, int, int]
    groups: int = 1
    squeezes: bool = False

    @property
    def stem(self) -> int:
        """Number of channels of the stem."""
        return min(64, self.widths[0])


class RepBlock(nnx.Module):
    """A sum of a 3x3 convolution, a 1x1 convolution and, if the shapes are equal, the input.

    It maps `(batch, height, width, in_features)` to `(batch, height / strides, width / strides, features)`.
    """

    def __init__(
        self,
        in_features: int,
        features: int,
        strides: int,
        *,
        groups: int,
        squeezes: bool,
        drop_path: float,
        rngs: nnx.Rngs,
    ) -> None:
        self.residual = strides == 1 and in_features == features
        self.convs = ParallelConvs(
            in_features, features, (3, 1), strides=strides, groups=groups, identity=self.residual, rngs=rngs
        )
        self.se = SqueezeExcite(features, features // 16, _STYLE, rngs) if squeezes else None
        self.drop_path = DropPath(drop_path)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        y = self.convs.convolved(x)
        if self.convs.norm is not None:
            y = self.drop_path(y, rngs=rngs) + self.convs.norm(x)
        return jax.nn.relu(y if self.se is None else self.se(y))


def build(shape: Shape, setting: Setting) -> Backbone:
    """Builds the blocks `stem`, `stages.0.0` …, `pre_logits`.

    The backbone maps images `(batch, height, width, channels)` to features `(batch, shape.widths[-1])`.
    """
    options = {"squeezes": shape.squeezes, "rngs": setting.rngs}
    features, index, total = shape.stem, 0, sum(shape.depths)
    blocks: dict[str, nnx.Module] = {
        "stem": RepBlock(setting.channels, features, 2, groups=1, drop_path=0.0, **options)
    }
    for stage, (depth, width) in enumerate(zip(shape.depths, shape.widths, strict=True)):
        for repeat in range(depth):
            blocks[f"stages.{stage}.{repeat}"] = RepBlock(
                features,
                width,
                1 if repeat else 2,
                groups=shape.groups if repeat % 2 else 1,
                drop_path=setting.drop_path * index / (total - 1),
                **options,
            )
            features, index = width, index + 1
    blocks[PRE_LOGITS] = GlobalPool()
    return Backbone(blocks, features)


def _timm(shape: Shape, path: tuple[str, ...]) -> str | None:
    match path:
        case ("head", "classifier"):
            return "head.fc"
        case ("backbone", block, "convs", "norm"):
            return f"{block}.identity"
        case ("backbone", block, "se", layer):
            return f"{block}.attn.{'fc1' if layer == 'reduce' else 'fc2'}"
        case ("backbone", block, "convs", conv, layer):
            return f"{block}.{_CONVOLUTIONS[conv]}.{'conv' if layer == 'conv' else 'bn'}"
    return None


_CONVOLUTIONS = {"conv0": "conv_kxk", "conv1": "conv_1x1"}
_A, _B = (2, 4, 14, 1), (4, 6, 16, 1)
_B1, _B2, _B3 = (128, 256, 512, 2048), (160, 320, 640, 2560), (192, 384, 768, 2560)
_SHAPES = {
    "repvgg_a0": Shape(_A, (48, 96, 192, 1280)),
    "repvgg_a1": Shape(_A, (64, 128, 256, 1280)),
    "repvgg_a2": Shape(_A, (96, 192, 384, 1408)),
    "repvgg_b0": Shape(_B, (64, 128, 256, 1280)),
    "repvgg_b1": Shape(_B, _B1),
    "repvgg_b1g4": Shape(_B, _B1, groups=4),
    "repvgg_b2": Shape(_B, _B2),
    "repvgg_b2g4": Shape(_B, _B2, groups=4),
    "repvgg_b3": Shape(_B, _B3),
    "repvgg_b3g4": Shape(_B, _B3, groups=4),
    "repvgg_d2se": Shape((8, 14, 24, 1), _B2, squeezes=True),
}


def _variant(shape: Shape) -> Variant:
    size, crop = (320, 1.0) if shape.squeezes else (224, 0.875)
    expected = Preprocessing(
        image_size=size, crop_fraction=crop, interpolation="bilinear", mean=IMAGENET_MEAN, std=IMAGENET_STD
    )
    return Variant(shape=shape, preprocessing=expected)


FAMILY = Family(
    name="repvgg",
    variants={name: _variant(shape) for name, shape in _SHAPES.items()},
    build=build,
    layer_names={"timm": _timm},
)
