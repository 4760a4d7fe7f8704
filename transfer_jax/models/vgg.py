"""VGG 11, 13, 16 and 19, with and without batch normalization; `keras_*` have Keras's preprocessing.

Source: Simonyan and Zisserman 2015, arXiv:1409.1556. The blocks are `block1` … `block5`. The features are
their output, flattened from a 7x7 grid. The published classifier has two hidden layers of width 4096.
"""

import jax
from flax import nnx

from transfer_jax.models.backbone import PRE_LOGITS, Backbone
from transfer_jax.models.family import (
    CAFFE,
    IMAGENET_MEAN,
    IMAGENET_STD,
    Family,
    LibraryLayer,
    Setting,
    Variant,
)
from transfer_jax.models.preprocessing import Preprocessing
from transfer_jax.nn.layers import Conv, ConvNorm, FlattenPool
from transfer_jax.nn.pooling import max_pool

Shape = tuple[tuple[int, ...], int, bool]
"""The convolutions of each block, the channels of the first block, and whether there is normalization."""

_GRID = 7


class Block(nnx.Module):
    """3x3 convolutions `conv1` …, each with a ReLU, and a 2x2 max pooling.

    It maps `(batch, height, width, in_features)` to `(batch, height / 2, width / 2, features)`.
    """

    def __init__(self, in_features: int, features: int, count: int, norm: bool, rngs: nnx.Rngs) -> None:
        self.names = tuple(f"conv{index + 1}" for index in range(count))
        layer = ConvNorm if norm else Conv
        for name in self.names:
            setattr(self, name, layer(in_features, features, 3, padding=1, use_bias=True, rngs=rngs))
            in_features = features

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        for name in self.names:
            x = jax.nn.relu(getattr(self, name)(x))
        return max_pool(x, 2, 2)


def build(shape: Shape, setting: Setting) -> Backbone:
    """Builds the blocks `block1` … `block5`, `pre_logits`.

    The backbone maps images `(batch, height, width, channels)` to features `(batch, 7 x 7 x 512)`.
    """
    counts, width, norm = shape
    blocks: dict[str, nnx.Module] = {}
    features = setting.channels
    for index, count in enumerate(counts):
        wide = width * 2 ** min(index, 3)
        blocks[f"block{index + 1}"] = Block(features, wide, count, norm, setting.rngs)
        features = wide
    blocks[PRE_LOGITS] = FlattenPool(_GRID)
    return Backbone(blocks, _GRID * _GRID * features)


def _features(shape: Shape, path: tuple[str, ...]) -> str:
    """Returns the module in the list `features` of torchvision and timm."""
    counts, _, norm = shape
    block, conv = int(path[1].removeprefix("block")) - 1, int(path[2].removeprefix("conv")) - 1
    step = 3 if norm else 2
    index = step * (sum(counts[:block]) + conv) + block  # a max pooling after each block
    return f"features.{index + (path[-1] == 'norm')}"


def _flattened(shape: Shape) -> tuple[int, int, int]:
    return _GRID, _GRID, 8 * shape[1]


def _torchvision(shape: Shape, path: tuple[str, ...]) -> str | LibraryLayer | None:
    match path:
        case ("head", "hidden", "0"):
            return LibraryLayer(("classifier.0",), view=_flattened(shape))
        case ("head", "hidden", "1"):
            return "classifier.3"
        case ("head", "classifier"):
            return "classifier.6"
        case ("backbone", *_):
            return _features(shape, path)
    return None


def _timm(shape: Shape, path: tuple[str, ...]) -> str | LibraryLayer | None:
    match path:
        case ("head", "hidden", "0"):
            return LibraryLayer(("pre_logits.fc1",), view=_flattened(shape), flat=False)
        case ("head", "hidden", "1"):
            return LibraryLayer(("pre_logits.fc2",), view=(1, 1, 4096), flat=False)
        case ("head", "classifier"):
            return "head.fc"
        case ("backbone", *_):
            return _features(shape, path)
    return None


def _keras(shape: Shape, path: tuple[str, ...]) -> str | None:
    """Returns the layer names of Keras, which has no VGG with normalization."""
    match path:
        case ("head", "hidden", index):
            return f"fc{int(index) + 1}"
        case ("head", "classifier"):
            return "predictions"
        case ("backbone", block, conv) if not shape[2]:
            return f"{block}_{conv}"
    return None


_COUNTS = {
    "vgg11": (1, 1, 2, 2, 2),
    "vgg13": (2, 2, 2, 2, 2),
    "vgg16": (2, 2, 3, 3, 3),
    "vgg19": (2, 2, 4, 4, 4),
}


_EXPECTED = Preprocessing(mean=IMAGENET_MEAN, std=IMAGENET_STD, interpolation="bilinear")


def _variant(counts: tuple[int, ...], norm: bool, preprocessing: Preprocessing = _EXPECTED) -> Variant:
    return Variant(shape=(counts, 64, norm), preprocessing=preprocessing, dropout=0.5, hidden=(4096, 4096))


FAMILY = Family(
    name="vgg",
    variants={
        **{
            f"{name}{'_bn' * norm}": _variant(counts, norm)
            for name, counts in _COUNTS.items()
            for norm in (False, True)
        },
        **{f"keras_{name}": _variant(_COUNTS[name], False, CAFFE) for name in ("vgg16", "vgg19")},
    },
    build=build,
    layer_names={"torchvision": _torchvision, "timm": _timm, "keras": _keras},
)
