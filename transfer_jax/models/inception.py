"""Inception V3; `keras_inception_v3` is Keras's variant.

Source: Szegedy et al. 2015, arXiv:1512.00567. The names of blocks and layers are those of the original code,
torchvision and timm. The auxiliary classifier, which is for training only, is left out. In Keras's variant,
normalizations have no scale, and average pooling does not count the padding.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from flax import nnx

from transfer_jax.models.backbone import PRE_LOGITS, Backbone
from transfer_jax.models.family import HALF, Family, Setting, Variant
from transfer_jax.models.preprocessing import Preprocessing
from transfer_jax.nn.layers import ConvNorm, GlobalPool
from transfer_jax.nn.pooling import max_pool


@dataclasses.dataclass(frozen=True)
class Layer:
    """A convolution with normalization and ReLU.

    Attributes:
        name: Name of the layer.
        channels: Number of output channels.
        kernel_size: Side of the kernel, or its height and width, in pixels.
        strides: Stride in pixels. A layer with a stride above 1 does not pad.
        pads: Whether a layer with stride 1 pads.
    """

    name: str
    channels: int
    kernel_size: int | tuple[int, int] = 1
    strides: int = 1
    pads: bool = True

    def build(self, in_features: int, keras: bool, rngs: nnx.Rngs) -> ConvNorm:
        """Builds the layer for a number of input channels; `keras` leaves out the normalization's scale."""
        return ConvNorm(
            in_features,
            self.channels,
            self.kernel_size,
            strides=self.strides,
            padding="SAME" if self.pads and self.strides == 1 else "VALID",
            use_scale=not keras,
            epsilon=1e-3,
            momentum=0.9,
            activation=jax.nn.relu,
            rngs=rngs,
        )


Step = tuple[Layer, ...]
"""Layers with the same input, whose outputs are concatenated."""
Branch = tuple[Step, ...]
"""Steps that run one after the other."""


@dataclasses.dataclass(frozen=True)
class Shape:
    """The layers of an Inception V3.

    Attributes:
        mixed: Name and branches of each mixed block.
        keras: Whether it is Keras's variant.
    """

    mixed: tuple[tuple[str, tuple[Branch, ...]], ...]
    keras: bool = False


class Pooled(nnx.Module):
    """A convolution and an optional 3x3 max pooling with stride 2.

    It maps `(batch, height, width, in_features)` to `(batch, out height, out width, channels of the layer)`.
    """

    def __init__(self, in_features: int, layer: Layer, pools: bool, keras: bool, rngs: nnx.Rngs) -> None:
        self.conv = layer.build(in_features, keras, rngs)
        self.pools = pools

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        x = self.conv(x)
        return max_pool(x, 3, 2) if self.pools else x


class Mixed(nnx.Module):
    """Parallel branches of convolutions and a pooling, whose outputs are concatenated.

    It maps `(batch, height, width, in_features)` to the same height and width, or to half of them. The
    pooling is a 3x3 average with a 1x1 convolution `branch_pool`. In a block that halves the image, it is a
    3x3 max pooling with stride 2, without a convolution.
    """

    def __init__(self, in_features: int, branches: tuple[Branch, ...], keras: bool, rngs: nnx.Rngs) -> None:
        for branch in branches:
            features = in_features
            for step in branch:
                for layer in step:
                    setattr(self, layer.name, layer.build(features, keras, rngs))
                features = _width(step)
        self.branches = tuple(
            tuple(tuple(layer.name for layer in step) for step in branch) for branch in branches
        )
        self.halves = _halves(branches)
        self.counts_padding = not keras

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        outputs = []
        for branch in self.branches:
            y = x
            if branch == (("branch_pool",),):
                y = nnx.avg_pool(x, (3, 3), (1, 1), padding="SAME", count_include_pad=self.counts_padding)
            for step in branch:
                y = jnp.concatenate([getattr(self, name)(y) for name in step], axis=-1)
            outputs.append(y)
        return jnp.concatenate([*outputs, *([max_pool(x, 3, 2)] if self.halves else [])], axis=-1)


def build(shape: Shape, setting: Setting) -> Backbone:
    """Builds the blocks `Conv2d_1a_3x3` … `Conv2d_4a_3x3`, `Mixed_5b` … `Mixed_7c`, `pre_logits`.

    The backbone maps images `(batch, height, width, channels)` to features `(batch, 2048)`.
    """
    rngs, features = setting.rngs, setting.channels
    blocks: dict[str, nnx.Module] = {}
    for layer in _STEM:
        blocks[layer.name] = Pooled(features, layer, layer.name in _POOLED, shape.keras, rngs)
        features = layer.channels
    for name, branches in shape.mixed:
        blocks[name] = Mixed(features, branches, shape.keras, rngs)
        kept = features if _halves(branches) else 0
        features = kept + sum(_width(branch[-1]) for branch in branches)
    blocks[PRE_LOGITS] = GlobalPool()
    return Backbone(blocks, features)


def _width(step: Step) -> int:
    return sum(layer.channels for layer in step)


def _halves(branches: tuple[Branch, ...]) -> bool:
    return any(layer.strides == 2 for branch in branches for step in branch for layer in step)


def _torch(shape: Shape, path: tuple[str, ...]) -> str | None:
    """Returns the layer names of torchvision and timm, which are the same."""
    match path:
        case ("head", "classifier"):
            return "fc"
        case ("backbone", block, *parts, layer):
            inside = "" if parts == ["conv"] else f".{parts[0]}"
            return f"{block}{inside}.{'conv' if layer == 'conv' else 'bn'}"
    return None


def _keras(shape: Shape, path: tuple[str, ...]) -> str | None:
    """Returns the layer names of Keras, which numbers the layers in the order of their creation."""
    match path:
        case _ if not shape.keras:
            return None
        case ("head", "classifier"):
            return "predictions"
        case ("backbone", block, name, layer):
            number = _numbers(shape)[block, name]
            return f"{'conv2d' if layer == 'conv' else 'batch_normalization'}{f'_{number}' if number else ''}"
    return None


@functools.cache
def _numbers(shape: Shape) -> dict[tuple[str, str], int]:
    """Returns the number of convolutions created before each one, by its block and name."""
    stem = [(layer.name, "conv") for layer in _STEM]
    mixed = [(block, name) for block, branches in shape.mixed for name in _depths(branches)]
    return {layer: number for number, layer in enumerate((*stem, *mixed))}


def _keras_order(shape: Shape, path: tuple[str, ...]) -> tuple[int, ...]:
    """Returns the sort key of a layer: a layer that more layers of its block follow comes first."""
    match path:
        case ("backbone", block, name, layer) if block in dict(shape.mixed):
            depths = _depths(dict(shape.mixed)[block])
            return -depths[name] - (layer == "conv"), [*depths].index(name)
    return (path[-1] == "norm",)


def _depths(branches: tuple[Branch, ...]) -> dict[str, int]:
    """Returns the number of Keras layers after each convolution's normalization in a block, by its name."""
    return {
        layer.name: 2 + 3 * (len(branch) - 1 - index) + (len(branch[-1]) > 1)  # concatenated twice
        for branch in branches
        for index, step in enumerate(branch)
        for layer in step
    }


_STEM = (
    Layer("Conv2d_1a_3x3", 32, 3, strides=2),
    Layer("Conv2d_2a_3x3", 32, 3, pads=False),
    Layer("Conv2d_2b_3x3", 64, 3),
    Layer("Conv2d_3b_1x1", 80),
    Layer("Conv2d_4a_3x3", 192, 3, pads=False),
)
_POOLED = ("Conv2d_2b_3x3", "Conv2d_4a_3x3")


def _chain(name: str, *layers: tuple[int, int | tuple[int, int]], last_strides: int = 1) -> Branch:
    """Returns a branch of layers `name_1` …, given by their channels and kernel sizes."""
    return tuple(
        (Layer(f"{name}_{index}", *layer, strides=last_strides if index == len(layers) else 1),)
        for index, layer in enumerate(layers, 1)
    )


def _single(name: str, channels: int, kernel_size: int = 1, strides: int = 1) -> Branch:
    return ((Layer(name, channels, kernel_size, strides),),)


def _a(pooled: int) -> tuple[Branch, ...]:
    return (
        _single("branch1x1", 64),
        _chain("branch5x5", (48, 1), (64, 5)),
        _chain("branch3x3dbl", (64, 1), (96, 3), (96, 3)),
        _single("branch_pool", pooled),
    )


def _c(inner: int) -> tuple[Branch, ...]:
    wide, high = (1, 7), (7, 1)
    return (
        _single("branch1x1", 192),
        _chain("branch7x7", (inner, 1), (inner, wide), (192, high)),
        _chain("branch7x7dbl", (inner, 1), (inner, high), (inner, wide), (inner, high), (192, wide)),
        _single("branch_pool", 192),
    )


def _both(name: str) -> Step:
    return Layer(f"{name}a", 384, (1, 3)), Layer(f"{name}b", 384, (3, 1))


_B = (
    _single("branch3x3", 384, 3, strides=2),
    _chain("branch3x3dbl", (64, 1), (96, 3), (96, 3), last_strides=2),
)
_D = (
    _chain("branch3x3", (192, 1), (320, 3), last_strides=2),
    _chain("branch7x7x3", (192, 1), (192, (1, 7)), (192, (7, 1)), (192, 3), last_strides=2),
)
_E = (
    _single("branch1x1", 320),
    (*_chain("branch3x3", (384, 1)), _both("branch3x3_2")),
    (*_chain("branch3x3dbl", (448, 1), (384, 3)), _both("branch3x3dbl_3")),
    _single("branch_pool", 192),
)
_V3 = Shape(
    (
        ("Mixed_5b", _a(32)),
        ("Mixed_5c", _a(64)),
        ("Mixed_5d", _a(64)),
        ("Mixed_6a", _B),
        ("Mixed_6b", _c(128)),
        ("Mixed_6c", _c(160)),
        ("Mixed_6d", _c(160)),
        ("Mixed_6e", _c(192)),
        ("Mixed_7a", _D),
        ("Mixed_7b", _E),
        ("Mixed_7c", _E),
    )
)
# torchvision's `transform_input` converts ImageNet's mean and deviation to these.
_EXPECTED = Preprocessing(image_size=299, mean=HALF, std=HALF, interpolation="bilinear")

FAMILY = Family(
    name="inception",
    variants={
        "inception_v3": Variant(shape=_V3, preprocessing=_EXPECTED, dropout=0.5),
        "keras_inception_v3": Variant(
            shape=dataclasses.replace(_V3, keras=True), preprocessing=_EXPECTED, dropout=0.5
        ),
    },
    build=build,
    layer_names={"torchvision": _torch, "timm": _torch, "keras": _keras},
    keras_order=_keras_order,
    ignored_keys=(r"^AuxLogits\.",),
)
