"""Res2Net 50 and 101, with the names of timm.

Source: Gao et al. 2019, arXiv:1904.01169: a ResNet whose 3x3 convolutions are several in a chain, each on a
part of the channels. `res2net50_26w_4s` has 4 parts of 26 channels.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from transfer_jax.models.backbone import Backbone
from transfer_jax.models.family import IMAGENET_MEAN, IMAGENET_STD, Family, LibraryLayer, Setting, Variant
from transfer_jax.models.preprocessing import Preprocessing
from transfer_jax.models.resnest import blurred
from transfer_jax.models.resnet import DEEP, DEPTHS, build_of, torch_layer
from transfer_jax.models.resnet import Shape as ResNetShape
from transfer_jax.nn.antialiasing import halve
from transfer_jax.nn.layers import ConvNorm, DropPath


@dataclasses.dataclass(frozen=True)
class Shape(ResNetShape):
    """The sizes of a Res2Net.

    Attributes:
        parts: Number of parts of the channels inside of a block. The last part has no convolution.
    """

    parts: int = 4


class ChainResidual(nnx.Module):
    """A residual bottleneck with a chain of 3x3 convolutions; arguments and shapes are those of `Residual`.

    Each convolution takes a part of the channels, added to the output of the one before. The first block of a
    stage adds nothing, and averages 3x3 pixels of the last part.
    """

    def __init__(
        self, shape: Shape, in_features: int, width: int, strides: int, drop_path: float, rngs: nnx.Rngs
    ) -> None:
        inner = width * shape.group_width // 64 * shape.groups
        common = {**shape.layers, "rngs": rngs}
        self.conv1 = ConvNorm(in_features, inner * shape.parts, activation=jax.nn.relu, **common)
        for part in range(shape.parts - 1):
            conv = ConvNorm(
                inner,
                inner,
                3,
                strides=strides,
                padding=1,
                groups=shape.groups,
                activation=jax.nn.relu,
                **common,
            )
            setattr(self, f"part{part}", conv)
        self.conv3 = ConvNorm(inner * shape.parts, 4 * width, **common)
        self.downsample = shape.downsample(in_features, 4 * width, strides, rngs)
        self.strides, self.parts = strides, shape.parts
        self.average = shape.average and strides > 1
        self.drop_path = DropPath(drop_path)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        first = self.downsample is not None
        *parts, last = jnp.split(self.conv1(x), self.parts, axis=-1)
        found = []
        for index, part in enumerate(parts):
            found.append(getattr(self, f"part{index}")(part if first or not index else part + found[-1]))
        y = jnp.concatenate([*found, blurred(last, self.strides) if first else last], axis=-1)
        if self.average:
            x = halve(x, "average_ceil")
        if self.downsample is not None:
            x = self.downsample(x)
        return jax.nn.relu(x + self.drop_path(self.conv3(y), rngs=rngs))


def build(shape: Shape, setting: Setting) -> Backbone:
    """Builds the blocks `stem`, `layer1.0` …, `pre_logits`; see `resnet.build`."""
    return build_of(ChainResidual, shape, setting)


def _timm(shape: Shape, path: tuple[str, ...]) -> str | LibraryLayer | None:
    match path:
        case ("backbone", block, part, layer) if part.startswith("part"):
            return f"{block}.{'convs' if layer == 'conv' else 'bns'}.{part.removeprefix('part')}"
    return torch_layer(shape, path)


_SHAPES = {
    "res2net50_26w_4s": Shape(DEPTHS[50], group_width=26),
    "res2net50_26w_6s": Shape(DEPTHS[50], group_width=26, parts=6),
    "res2net50_26w_8s": Shape(DEPTHS[50], group_width=26, parts=8),
    "res2net50_48w_2s": Shape(DEPTHS[50], group_width=48, parts=2),
    "res2net50_14w_8s": Shape(DEPTHS[50], group_width=14, parts=8),
    "res2net50d": Shape(DEPTHS[50], group_width=26, stem=DEEP, average=True),
    "res2next50": Shape(DEPTHS[50], groups=8, group_width=4),
    "res2net101_26w_4s": Shape(DEPTHS[101], group_width=26),
    "res2net101d": Shape(DEPTHS[101], group_width=26, stem=DEEP, average=True),
}

FAMILY = Family(
    name="res2net",
    variants={
        name: Variant(
            shape=shape,
            preprocessing=Preprocessing(mean=IMAGENET_MEAN, std=IMAGENET_STD, interpolation="bilinear"),
        )
        for name, shape in _SHAPES.items()
    },
    build=build,
    layer_names={"timm": _timm},
)
