"""Xception; `keras_xception` has Keras's epsilon and padding.

Source: Chollet 2016, arXiv:1610.02357. The names of blocks are those of timm, where the network is called
`legacy_xception`.
"""

import dataclasses

import jax
from flax import nnx

from transfer_jax.models.backbone import PRE_LOGITS, Backbone
from transfer_jax.models.family import HALF, Family, LibraryLayer, Setting, Variant
from transfer_jax.models.preprocessing import Preprocessing
from transfer_jax.nn.layers import Conv, ConvNorm, DropPath, GlobalPool
from transfer_jax.nn.pooling import max_pool

Block = tuple[tuple[int, ...], int]
"""The channels after each separable convolution, and the stride."""


@dataclasses.dataclass(frozen=True)
class Shape:
    """The sizes of an Xception.

    Attributes:
        residual: The residual blocks, in order.
        keras: Whether it is Keras's variant.
    """

    residual: tuple[Block, ...]
    keras: bool = False

    @property
    def epsilon(self) -> float:
        """The value added to the variance by normalizations."""
        return 1e-3 if self.keras else 1e-5

    @property
    def reshaping(self) -> tuple[str, ...]:
        """The names of the residual blocks whose shortcut has a convolution."""
        return tuple(f"block{index}" for index, (_, strides) in enumerate(self.residual, 1) if strides > 1)


class Separable(nnx.Module):
    """A separable convolution: depthwise 3x3 and 1x1, with normalization and an optional ReLU.

    It maps `(batch, height, width, in_features)` to `(batch, height, width, features)`.
    """

    def __init__(
        self, in_features: int, features: int, epsilon: float, rectified: bool, rngs: nnx.Rngs
    ) -> None:
        self.depthwise = Conv(in_features, in_features, 3, padding=1, groups=in_features, rngs=rngs)
        activation = jax.nn.relu if rectified else None
        self.pointwise = ConvNorm(
            in_features, features, epsilon=epsilon, momentum=0.9, activation=activation, rngs=rngs
        )

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        return self.pointwise(self.depthwise(x))


class Residual(nnx.Module):
    """A residual block of separable convolutions `sepconv1` …, each after a ReLU.

    It maps `(batch, height, width, in_features)` to `(batch, height / strides, width / strides, features)`. A
    block with stride 2 ends with a 3x3 max pooling, and its shortcut has a 1x1 convolution. The first block
    has no ReLU before its first convolution.
    """

    def __init__(
        self, shape: Shape, in_features: int, block: Block, first: bool, drop_path: float, rngs: nnx.Rngs
    ) -> None:
        widths, self.strides = block
        if self.strides > 1:
            self.skip = ConvNorm(
                in_features,
                widths[-1],
                strides=self.strides,
                epsilon=shape.epsilon,
                momentum=0.9,
                rngs=rngs,
            )
        else:
            self.skip = None
        self.names = tuple(f"sepconv{index}" for index in range(1, len(widths) + 1))
        for name, width in zip(self.names, widths, strict=True):
            setattr(self, name, Separable(in_features, width, shape.epsilon, False, rngs))
            in_features = width
        self.first, self.same = first, shape.keras
        self.drop_path = DropPath(drop_path)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        y = x if self.first else jax.nn.relu(x)
        for name in self.names:
            y = getattr(self, name)(y if name == self.names[0] else jax.nn.relu(y))
        if self.strides > 1:
            window, strides = (3, 3), (self.strides, self.strides)
            y = (
                nnx.max_pool(y, window, strides, padding="SAME")
                if self.same
                else max_pool(y, 3, self.strides, padding=1)
            )
        return (x if self.skip is None else self.skip(x)) + self.drop_path(y, rngs=rngs)


def build(shape: Shape, setting: Setting) -> Backbone:
    """Builds the blocks `conv1`, `conv2`, `block1` … `block12`, `conv3`, `conv4`, `pre_logits`.

    The backbone maps images `(batch, height, width, channels)` to features `(batch, 2048)`.
    """
    rngs, features = setting.rngs, 64
    blocks: dict[str, nnx.Module] = {
        "conv1": _stem(setting.channels, 32, 2, shape.epsilon, rngs),
        "conv2": _stem(32, features, 1, shape.epsilon, rngs),
    }
    for index, block in enumerate(shape.residual):
        rate = setting.drop_path * index / (len(shape.residual) - 1)
        blocks[f"block{index + 1}"] = Residual(shape, features, block, index == 0, rate, rngs)
        features = block[0][-1]
    blocks["conv3"] = Separable(features, 1536, shape.epsilon, True, rngs)
    blocks["conv4"] = Separable(1536, 2048, shape.epsilon, True, rngs)
    blocks[PRE_LOGITS] = GlobalPool()
    return Backbone(blocks, 2048)


def _stem(in_features: int, features: int, strides: int, epsilon: float, rngs: nnx.Rngs) -> ConvNorm:
    return ConvNorm(
        in_features,
        features,
        3,
        strides=strides,
        padding="VALID",
        epsilon=epsilon,
        momentum=0.9,
        activation=jax.nn.relu,
        rngs=rngs,
    )


def _timm(shape: Shape, path: tuple[str, ...]) -> str | None:
    match path:
        case ("head", "classifier"):
            return "fc"
        case ("backbone", "conv1" | "conv2" as block, layer):
            return block if layer == "conv" else block.replace("conv", "bn")
        case ("backbone", "conv3" | "conv4" as block, "pointwise", "norm"):
            return block.replace("conv", "bn")
        case ("backbone", "conv3" | "conv4" as block, part, *_):
            return f"{block}.{_SEPARABLE[part]}"
        case ("backbone", block, "skip", layer):
            return f"{block}.{'skip' if layer == 'conv' else 'skipbn'}"
        case ("backbone", block, name, part, *layers):
            # ReLU, convolution, normalization, …; the first block has no first ReLU
            index = 3 * int(name.removeprefix("sepconv")) - (3 if block == "block1" else 2)
            if layers == ["norm"]:
                return f"{block}.rep.{index + 1}"
            return f"{block}.rep.{index}.{_SEPARABLE[part]}"
    return None


_SEPARABLE = {"depthwise": "conv1", "pointwise": "pointwise"}


def _keras(shape: Shape, path: tuple[str, ...]) -> str | LibraryLayer | None:
    """Returns the layer names of Keras, which has both convolutions of a separable one in one layer."""
    match path:
        case _ if not shape.keras:
            return None
        case ("head", "classifier"):
            return "predictions"
        case ("backbone", "conv1" | "conv2" as block, layer):
            return f"block1_{block}{'_bn' if layer == 'norm' else ''}"
        case ("backbone", block, "skip", layer):
            number = shape.reshaping.index(block)
            return f"{'conv2d' if layer == 'conv' else 'batch_normalization'}{f'_{number}' if number else ''}"
        case ("backbone", "conv3" | "conv4" as block, *layers):
            name = f"block14_sepconv{int(block.removeprefix('conv')) - 2}"
        case ("backbone", block, convolution, *layers):
            name = f"block{int(block.removeprefix('block')) + 1}_{convolution}"
        case _:
            return None
    if layers[-1] == "norm":
        return f"{name}_bn"
    return LibraryLayer((f"{name}/{layers[0]}_",), depthwise=layers == ["depthwise"])


_SHAPE = Shape(
    (
        ((128, 128), 2),
        ((256, 256), 2),
        ((728, 728), 2),
        *(((728, 728, 728), 1),) * 8,
        ((728, 1024), 2),
    )
)

FAMILY = Family(
    name="xception",
    variants={
        "xception": Variant(
            shape=_SHAPE,
            preprocessing=Preprocessing(image_size=299, crop_fraction=0.8975, mean=HALF, std=HALF),
        ),
        "keras_xception": Variant(
            shape=dataclasses.replace(_SHAPE, keras=True),
            preprocessing=Preprocessing(image_size=299, mean=HALF, std=HALF, interpolation="bilinear"),
        ),
    },
    build=build,
    layer_names={"timm": _timm, "keras": _keras},
)
