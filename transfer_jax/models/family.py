"""What a file of `models/` says of a family: its variants, how to build one, and its names elsewhere."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from flax import nnx

from transfer_jax.models.backbone import Backbone
from transfer_jax.models.preprocessing import Preprocessing

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)
"""Mean and deviation of ImageNet's pixels, per RGB channel on the 0..255 scale."""
CAFFE = Preprocessing(
    interpolation="bilinear", mean=(123.68, 116.779, 103.939), std=(1.0, 1.0, 1.0), channel_order="bgr"
)
"""What Keras's VGG and ResNet expect."""
HALF = (127.5, 127.5, 127.5)
"""As mean and deviation it maps pixels to -1..1."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Resampling:
    """How positions learnt on a grid become those of another, bicubically.

    Attributes:
        averages: Whether what falls together where the grid shrinks is averaged, which is called
            antialiasing; else just the nearest positions count.
        excess: Added to the side of the new grid when its step is computed, in patches.
    """

    antialias: bool = True
    offset: float = 0.0


TIMM_RESAMPLING = Resampling()
"""That of timm."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Variant:
    """A network of a family.

    Attributes:
        shape: What `Family.build` needs to know of it: widths, depths and the like.
        preprocessing: What its published weights expect as input.
        dropout: Dropout of its classifier.
        hidden: Widths of the hidden layers of its published classifier.
        resampling: How its positions become those for images of another size, or for other windows.
    """

    shape: Any
    preprocessing: Preprocessing
    dropout: float = 0.0
    hidden: tuple[int, ...] = ()
    resampling: Resampling = TIMM_RESAMPLING


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """What is chosen when a network is built.

    Attributes:
        rngs: Source of the initial parameters.
        channels: Channels of the images.
        image_size: Side of the images in pixels, for networks with position embeddings.
        drop_path: Rate of stochastic depth at the last block, growing linearly from 0; networks without
            residual branches ignore it.
    """

    rngs: nnx.Rngs
    channels: int = 3
    image_size: int = 224
    drop_path: float = 0.0


@dataclasses.dataclass(frozen=True)
class LibraryLayer:
    """Where a layer of ours stands in another library.

    Attributes:
        modules: Names of its modules there; where there are several, ours holds them side by side along the
            outputs. A name that ends in `_` is joined to `weight` or `bias` without a dot.
        view: For a dense kernel on flattened features: their height, width and channels.
        flat: Whether theirs is a dense kernel on `(channels, height, width)`, else a convolution.
        trailing: Axes of size one that theirs has at the end.
        leading: Axes of size one that theirs has at the beginning; below 0, those of ours that it lacks.
        shares: How much of the outputs each of several modules has; None for as much as any other.
        heads: Heads of an attention that has an axis of its own for them, in a kernel and a bias.
        of_inputs: Whether the heads divide the kernel's inputs, and the bias not at all; else the outputs.
        depthwise: Whether the convolution has one filter a channel, which Keras lays out in its own way.
    """

    modules: tuple[str, ...]
    view: tuple[int, int, int] | None = None
    flat: bool = True
    trailing: int = 0
    leading: int = 0
    sizes: tuple[int, ...] | None = None
    heads: int = 0
    of_inputs: bool = False
    depthwise: bool = False


LayerNames = Callable[[Any, tuple[str, ...]], str | LibraryLayer | None]
"""From a variant's shape and the path of a layer to the module there; None if there is none.

The path is that of a parameter without its last part. A parameter that is no layer's kernel, scale, bias,
mean or variance is given whole, and is answered with its whole name. The path `("pixels",)` asks for the
layer that normalizes the images inside of the network there, and has no parameters here.
"""


LayerOrder = Callable[[Any, tuple[str, ...]], tuple[Any, ...]]
"""From a variant's shape and the path of a layer to what sorts it among those of its block."""


def alphabetical(shape: Any, path: tuple[str, ...]) -> tuple[str, ...]:
    """The `LayerOrder` of a family whose layers run in the alphabetical order of their names."""
    del shape
    return path


def with_prefix(module: str, names: LayerNames, *, classifier: str | None = None) -> LayerNames:
    """The naming of a network that is a module of another, which may have a classifier."""

    def prefixed(shape: Any, path: tuple[str, ...]) -> LibraryLayer | None:
        if path == ("head", "classifier"):
            return None if classifier is None else LibraryLayer((classifier,))
        layer = names(shape, path)
        layer = LibraryLayer((layer,)) if isinstance(layer, str) else layer
        return layer and dataclasses.replace(
            layer, modules=tuple(f"{module}.{inner}" for inner in layer.modules)
        )

    return prefixed


@dataclasses.dataclass(frozen=True, kw_only=True)
class Family:
    """Networks that differ in size.

    Attributes:
        name: The family's name.
        variants: The networks by name.
        build: From a variant's shape and a setting to its backbone.
        layer_names: By library, what the parameters are called there.
        keras_order: The order that Keras has a block's layers in: as they run, and of parallel ones the one
            ahead that more layers follow.
        ignored_keys: Regular expressions; keys of published files that match are of parts that these networks
            leave out, such as a classifier that only helps training.
    """

    name: str
    variants: Mapping[str, Variant]
    build: Callable[[Any, Setting], Backbone]
    layer_names: Mapping[str, LayerNames]
    keras_order: LayerOrder = alphabetical
    ignored_keys: tuple[str, ...] = ()
