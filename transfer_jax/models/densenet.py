"""DenseNet 121, 161, 169 and 201; `keras_*` have Keras's epsilon.

Source: Huang et al. 2016, arXiv:1608.06993. The blocks are the dense layers, which append channels to their
input, the transitions between the dense blocks, and the last normalization.
"""

import dataclasses
import re

import jax
import jax.numpy as jnp
from flax import nnx

from transfer_jax.models.backbone import PRE_LOGITS, Backbone
from transfer_jax.models.family import IMAGENET_MEAN, IMAGENET_STD, Family, Setting, Variant
from transfer_jax.models.preprocessing import Preprocessing
from transfer_jax.nn.layers import Conv, ConvNorm, GlobalPool, NormAct
from transfer_jax.nn.pooling import max_pool


@dataclasses.dataclass(frozen=True)
class Shape:
    """The sizes of a DenseNet.

    Attributes:
        depths: Number of dense layers of each dense block.
        stem: Number of channels of the stem.
        growth: Number of channels that each dense layer appends.
        epsilon: Value added to the variance by normalizations.
    """

    depths: tuple[int, int, int, int]
    stem: int = 64
    growth: int = 32
    epsilon: float = 1e-5


class Stem(nnx.Module):
    """A 7x7 convolution and a 3x3 max pooling, each with stride 2.

    It maps `(batch, height, width, channels)` to `(batch, height / 4, width / 4, stem)`.
    """

    def __init__(self, channels: int, shape: Shape, rngs: nnx.Rngs) -> None:
        self.conv0 = ConvNorm(
            channels,
            shape.stem,
            7,
            strides=2,
            padding=3,
            epsilon=shape.epsilon,
            activation=jax.nn.relu,
            rngs=rngs,
        )

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        return max_pool(self.conv0(x), 3, 2, padding=1)


class DenseLayer(nnx.Module):
    """A normalization, a 1x1 and a 3x3 convolution, whose output is concatenated to the input.

    It maps `(batch, height, width, in_features)` to `(batch, height, width, in_features + growth)`.
    """

    def __init__(self, in_features: int, shape: Shape, rngs: nnx.Rngs) -> None:
        growth, epsilon = shape.growth, shape.epsilon
        self.norm1 = NormAct(in_features, epsilon=epsilon, rngs=rngs)
        self.conv1 = ConvNorm(in_features, 4 * growth, epsilon=epsilon, activation=jax.nn.relu, rngs=rngs)
        self.conv2 = Conv(4 * growth, growth, 3, padding=1, rngs=rngs)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        return jnp.concatenate([x, self.conv2(self.conv1(self.norm1(x)))], axis=-1)


class Transition(nnx.Module):
    """A normalization, a 1x1 convolution and a 2x2 average pooling.

    It maps `(batch, height, width, in_features)` to `(batch, height / 2, width / 2, in_features / 2)`.
    """

    def __init__(self, in_features: int, epsilon: float, rngs: nnx.Rngs) -> None:
        self.norm = NormAct(in_features, epsilon=epsilon, rngs=rngs)
        self.conv = Conv(in_features, in_features // 2, rngs=rngs)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        return nnx.avg_pool(self.conv(self.norm(x)), (2, 2), (2, 2))


def build(shape: Shape, setting: Setting) -> Backbone:
    """Builds the blocks `stem`, `denseblock1.denselayer1` …, `transition1`, …, `norm5`, `pre_logits`.

    The backbone maps images `(batch, height, width, channels)` to features `(batch, features)`.
    """
    rngs, features = setting.rngs, shape.stem
    blocks: dict[str, nnx.Module] = {"stem": Stem(setting.channels, shape, rngs)}
    for stage, depth in enumerate(shape.depths, 1):
        for repeat in range(1, depth + 1):
            blocks[f"denseblock{stage}.denselayer{repeat}"] = DenseLayer(features, shape, rngs)
            features += shape.growth
        if stage < len(shape.depths):
            blocks[f"transition{stage}"] = Transition(features, shape.epsilon, rngs)
            features //= 2
    blocks["norm5"] = NormAct(features, epsilon=shape.epsilon, rngs=rngs)
    blocks[PRE_LOGITS] = GlobalPool()
    return Backbone(blocks, features)


def _torch(shape: Shape, path: tuple[str, ...]) -> str | None:
    """Returns the layer names of torchvision and timm, which are the same."""
    match path:
        case ("head", "classifier"):
            return "classifier"
        case ("backbone", "stem", _, layer):
            return f"features.{layer}0"
        case ("backbone", "norm5", "norm"):
            return "features.norm5"
        case ("backbone", block, "norm1" | "norm" as part, "norm"):
            return f"features.{block}.{part}"
        case ("backbone", block, "conv1", layer):
            return f"features.{block}.{'conv1' if layer == 'conv' else 'norm2'}"
        case ("backbone", block, part):
            return f"features.{block}.{part}"
    return None


def _keras(shape: Shape, path: tuple[str, ...]) -> str | None:
    match path:
        case _ if shape.epsilon != _KERAS_EPSILON:
            return None
        case ("head", "classifier"):
            return "predictions"
        case ("backbone", "stem", _, layer):
            return f"conv1_{'conv' if layer == 'conv' else 'bn'}"
        case ("backbone", "norm5", "norm"):
            return "bn"
        case ("backbone", block, part, *_) if block.startswith("transition"):
            stage = int(block.removeprefix("transition")) + 1
            return f"pool{stage}_{'conv' if part == 'conv' else 'bn'}"
        case ("backbone", block, part, *layer):
            stage, repeat = re.findall(r"\d+", block)
            known = {
                "norm1": "0_bn",
                "conv1": f"1_{'bn' if layer == ['norm'] else 'conv'}",
                "conv2": "2_conv",
            }
            return f"conv{int(stage) + 1}_block{repeat}_{known[part]}"
    return None


def _keras_order(shape: Shape, path: tuple[str, ...]) -> tuple[int, ...]:
    """Returns the position of a layer in its block; all blocks but the stem begin with a normalization."""
    return ("norm1", "norm", "conv0", "conv1", "conv", "conv2").index(path[2]), path[3:] == ("norm",)


_KERAS_EPSILON = 1.001e-5
_SHAPES = {
    "densenet121": Shape((6, 12, 24, 16)),
    "densenet161": Shape((6, 12, 36, 24), stem=96, growth=48),
    "densenet169": Shape((6, 12, 32, 32)),
    "densenet201": Shape((6, 12, 48, 32)),
    "keras_densenet121": Shape((6, 12, 24, 16), epsilon=_KERAS_EPSILON),
    "keras_densenet169": Shape((6, 12, 32, 32), epsilon=_KERAS_EPSILON),
    "keras_densenet201": Shape((6, 12, 48, 32), epsilon=_KERAS_EPSILON),
}

FAMILY = Family(
    name="densenet",
    variants={
        name: Variant(shape=shape, preprocessing=Preprocessing(mean=IMAGENET_MEAN, std=IMAGENET_STD))
        for name, shape in _SHAPES.items()
    },
    build=build,
    layer_names={"torchvision": _torch, "timm": _torch, "keras": _keras},
    keras_order=_keras_order,
)
