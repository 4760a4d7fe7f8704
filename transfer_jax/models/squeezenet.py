"""SqueezeNet 1.0 and 1.1.

Source: Iandola et al. 2016, arXiv:1602.07360, and the authors' release of 1.1. The published classifier
rectifies the logits of every pixel before it averages them. No head on averaged features can do that, so it
is left out, and the new head is linear as everywhere.
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
    """Channels and kernel size of the first convolution, and the blocks that end with a maximum."""

    stem: int
    kernel_size: int
    pooled: tuple[str, ...]

    def position(self, block: str) -> int:
        """Where torchvision has a block: behind all earlier ones, the ReLU of the stem, and the maxima."""
        names = ("conv1", *_FIRES)
        before = names[: names.index(block)]
        return len(before) + bool(before) + sum(name in self.pooled for name in before)


class Stem(nnx.Module):
    """A convolution at stride 2, and a 3x3 maximum at stride 2."""

    def __init__(self, channels: int, shape: Shape, rngs: nnx.Rngs) -> None:
        self.conv = Conv(
            channels, shape.stem, shape.kernel_size, strides=2, padding="VALID", use_bias=True, rngs=rngs
        )

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        return max_pool(jax.nn.relu(self.conv(x)), 3, 2, ceil_mode=True)


class Fire(nnx.Module):
    """A 1x1 convolution to few channels, then a 1x1 and a 3x3 side by side, and a maximum if pooled."""

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
    """The blocks `conv1`, `fire2` … `fire9`, `pre_logits`."""
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


# channels squeezed to, and of each half
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
