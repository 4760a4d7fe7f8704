"""SqueezeNet 1.0 and 1.1.

Source: Iandola et al. 2016, arXiv:1602.07360, and the authors' release of 1.1. The published classifier
applies a ReLU to the logits of every pixel before averaging them. A head on averaged features cannot
represent that, so the published classifier is left out. The new head is linear, as in all families.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from transfer_jax.models.backbone import PRE_LOGITS, Backbone
from transfer_jax.models.family import IMAGENET_MEAN, IMAGENET_STD, Family, Setting, Variant
from transfer_jax.models.preprocessing import Preprocessing
from transfer_jax.nn.layers import Conv, GlobalPool
from transfer_jax.nn.pooling import max_pool


@dataclasses.dataclass(frozen=True)
class Shape:
    """The sizes of a SqueezeNet.

    Attributes:
        stem: Number of channels of the first convolution.
        kernel_size: Side of its kernel, in pixels.
        pooled: Names of the blocks that end with a max pooling.
    """

    stem: int
    kernel_size: int
    pooled: tuple[str, ...]

    def position(self, block: str) -> int:
        """Returns the index of a block in torchvision's list, counting the stem's ReLU and poolings."""
        names = ("conv1", *_FIRES)
        before = names[: names.index(block)]
        return len(before) + bool(before) + sum(name in self.pooled for name in before)


class Stem(nnx.Module):
    """A convolution and a 3x3 max pooling, each with stride 2.

    It maps `(batch, height, width, channels)` to about `(batch, height / 4, width / 4, stem)`.
    """

    def __init__(self, channels: int, shape: Shape, rngs: nnx.Rngs) -> None:
        self.conv = Conv(
            channels, shape.stem, shape.kernel_size, strides=2, padding="VALID", use_bias=True, rngs=rngs
        )

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        return max_pool(jax.nn.relu(self.conv(x)), 3, 2, ceil_mode=True)


class Fire(nnx.Module):
    """A 1x1 convolution to few channels, parallel 1x1 and 3x3 convolutions, and an optional max pooling.

    It maps `(batch, height, width, in_features)` to `(batch, height, width, 2 x half)`. The pooling halves
    height and width.
    """

    def __init__(self, in_features: int, squeezed: int, half: int, pooled: bool, rngs: nnx.Rngs) -> None:
        self.squeeze = Conv(in_features, squeezed, use_bias=True, rngs=rngs)
        self.expand1x1 = Conv(squeezed, half, use_bias=True, rngs=rngs)
        self.expand3x3 = Conv(squeezed, half, 3, padding=1, use_bias=True, rngs=rngs)
        self.pooled = pooled

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        x = jax.nn.relu(self.squeeze(x))
        x = jax.nn.relu(jnp.concatenate([self.expand1x1(x), self.expand3x3(x)], axis=-1))
        return max_pool(x, 3, 2, ceil_mode=True) if self.pooled else x


def build(shape: Shape, setting: Setting) -> Backbone:
    """Builds the blocks `conv1`, `fire2` … `fire9`, `pre_logits`.

    The backbone maps images `(batch, height, width, channels)` to features `(batch, 512)`.
    """
    features = shape.stem
    blocks: dict[str, nnx.Module] = {"conv1": Stem(setting.channels, shape, setting.rngs)}
    for name, (squeezed, half) in _FIRES.items():
        blocks[name] = Fire(features, squeezed, half, name in shape.pooled, setting.rngs)
        features = 2 * half
    blocks[PRE_LOGITS] = GlobalPool()
    return Backbone(blocks, features)


def _torchvision(shape: Shape, path: tuple[str, ...]) -> str | None:
    match path:
        case ("backbone", "conv1", "conv"):
            return "features.0"
        case ("backbone", block, layer):
            return f"features.{shape.position(block)}.{layer}"
    return None


# (channels of the squeeze, channels of each of the two expansions)
_FIRES = {
    "fire2": (16, 64),
    "fire3": (16, 64),
    "fire4": (32, 128),
    "fire5": (32, 128),
    "fire6": (48, 192),
    "fire7": (48, 192),
    "fire8": (64, 256),
    "fire9": (64, 256),
}
_SHAPES = {
    "squeezenet1_0": Shape(96, 7, ("conv1", "fire4", "fire8")),
    "squeezenet1_1": Shape(64, 3, ("conv1", "fire3", "fire5")),
}

FAMILY = Family(
    name="squeezenet",
    variants={
        name: Variant(
            shape=shape,
            preprocessing=Preprocessing(mean=IMAGENET_MEAN, std=IMAGENET_STD, interpolation="bilinear"),
            dropout=0.5,
        )
        for name, shape in _SHAPES.items()
    },
    build=build,
    layer_names={"torchvision": _torchvision},
    ignored_keys=(r"^classifier\.1\.",),
)
