"""The description of a network family: variants, a build function, and parameter names in other libraries."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from flax import nnx

from transfer_jax.models.backbone import Backbone
from transfer_jax.models.preprocessing import Preprocessing

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)
"""The mean and the standard deviation of ImageNet's pixels, per RGB channel on the 0..255 scale."""
CAFFE = Preprocessing(
    interpolation="bilinear", mean=(123.68, 116.779, 103.939), std=(1.0, 1.0, 1.0), channel_order="bgr"
)
"""The preprocessing of Keras's VGG and ResNet."""
HALF = (127.5, 127.5, 127.5)
"""The value that maps pixels to -1..1, as mean and as standard deviation."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Resampling:
    """The bicubic resampling of position embeddings from one grid to another.

    Attributes:
        antialias: Whether positions are averaged if the grid shrinks (antialiasing); otherwise only the
            nearest positions are used.
        offset: Value added to the side of the new grid when its step is computed, in patches.
    """

    antialias: bool = True
    offset: float = 0.0


TIMM_RESAMPLING = Resampling()
"""The resampling of timm."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Variant:
    """A network of a family.

    Attributes:
        shape: Widths, depths and other sizes, in the type that `Family.build` takes.
        preprocessing: Input that its published weights expect.
        dropout: Dropout rate of its published classifier.
        hidden: Widths of the hidden layers of its published classifier.
        resampling: Resampling of its position embeddings for other image sizes or windows.
    """

    shape: Any
    preprocessing: Preprocessing
    dropout: float = 0.0
    hidden: tuple[int, ...] = ()
    resampling: Resampling = TIMM_RESAMPLING


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """The options of building a backbone.

    Attributes:
        rngs: Source of the initial parameters.
        channels: Number of channels of the images.
        image_size: Side of the images in pixels. Only networks with position embeddings need it.
        drop_path: Rate of stochastic depth of the last block. It grows linearly from 0 at the first block.
            Networks without residual branches ignore it.
    """

    rngs: nnx.Rngs
    channels: int = 3
    image_size: int = 224
    drop_path: float = 0.0


@dataclasses.dataclass(frozen=True)
class LibraryLayer:
    """The modules of another library that hold a layer of this one, and the differences in layout.

    Attributes:
        modules: Names of the modules. If there are several, the layer here is their concatenation along the
            outputs. A name that ends in `_` is joined to `weight` or `bias` without a dot.
        view: Height, width and channels of the input of a dense kernel on flattened features; None for other
            kernels.
        flat: For a kernel with `view`: True if the other library has a dense kernel on `(channels, height,
            width)`, False if it has a convolution.
        trailing: Number of axes of size one that the other library's array has at the end.
        leading: Number of axes of size one that the other library's array has at the beginning; negative for
            axes that only the array here has.
        grid: Side of a square grid, if the other library's array has two axes for the grid and the array here
            has one; 0 otherwise.
        sizes: Relative numbers of outputs of several modules; None for equal numbers.
        part: Index and number of the equal parts of the other library's array along the outputs, if the array
            here is one of them. Parts that no array here has are zeros. None for the whole array.
        heads: Number of attention heads, if the other library's kernel and bias have an axis for them; 0 if
            they have none.
        of_inputs: True if the axis of heads divides the kernel's inputs, and the bias has no such axis; False
            if it divides the outputs.
        depthwise: Whether the kernel is depthwise, for which Keras has a layout of its own.
    """

    modules: tuple[str, ...]
    view: tuple[int, int, int] | None = None
    flat: bool = True
    trailing: int = 0
    leading: int = 0
    grid: int = 0
    sizes: tuple[int, ...] | None = None
    part: tuple[int, int] | None = None
    heads: int = 0
    of_inputs: bool = False
    depthwise: bool = False


LayerNames = Callable[[Any, tuple[str, ...]], str | LibraryLayer | None]
"""A function from a variant's shape and the path of a layer to the layer in another library.

It returns the name of the module, a `LibraryLayer` if the layouts differ, or None if the library has no such
layer. The path is that of a parameter without its last part. For a parameter other than a kernel, scale,
bias, mean or variance, the path is complete, and so is the returned name. The path `("pixels",)` asks for the
layer that normalizes images inside the network of the other library; there is no such layer here.
"""

LayerOrder = Callable[[Any, tuple[str, ...]], tuple[Any, ...]]
"""A function from a variant's shape and the path of a layer to the layer's sort key within its block."""


def alphabetical(shape: Any, path: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the sort key of a layer whose block runs its layers in alphabetical order of their names."""
    del shape
    return path


def with_prefix(module: str, names: LayerNames, *, classifier: str | None = None) -> LayerNames:
    """Returns the layer names of a network that is a module of another network.

    Args:
        module: Name of the module.
        names: Layer names inside the module.
        classifier: Name of the other network's classifier; None if it has none.
    """

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
    """A family of networks that differ in their sizes.

    Attributes:
        name: Name of the family.
        variants: Networks by name.
        build: Function from a variant's shape and a `Setting` to the backbone.
        layer_names: Layer names by library.
        keras_order: Order of a block's layers in Keras. It is the order in which they run; of parallel
            layers, the one that is followed by more layers comes first.
        has_weights: Whether `build` returns pretrained parameters, so that no weights are loaded.
        ignored_keys: Regular expressions of keys in published files that these networks have no parameters
            for, such as an auxiliary classifier.
    """

    name: str
    variants: Mapping[str, Variant]
    build: Callable[[Any, Setting], Backbone]
    layer_names: Mapping[str, LayerNames]
    keras_order: LayerOrder = alphabetical
    has_weights: bool = False
    ignored_keys: tuple[str, ...] = ()
