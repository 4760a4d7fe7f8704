"""ConvNeXt tiny to extra large, and ConvNeXt V2.

Sources: Liu et al. 2022, arXiv:2201.03545; Woo et al. 2023, arXiv:2301.00808 (V2: a global response
normalization inside the perceptron instead of a learned scale after it). The names of blocks and networks are
timm's.
"""

import dataclasses
import re

import jax
import jax.numpy as jnp
from flax import nnx

from transfer_jax.models.backbone import PRE_LOGITS, Backbone
from transfer_jax.models.family import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Family,
    LibraryLayer,
    Setting,
    Variant,
    with_prefix,
)
from transfer_jax.models.preprocessing import Preprocessing
from transfer_jax.nn.activations import gelu
from transfer_jax.nn.initializers import zeros
from transfer_jax.nn.layers import Conv, DropPath, Identity, LayerNorm, LayerScale, Linear


@dataclasses.dataclass(frozen=True)
class Shape:
    """The sizes of a ConvNeXt.

    Attributes:
        depths: Number of blocks of each stage.
        widths: Number of channels of each stage.
        v2: Whether it is a ConvNeXt V2.
        convolutional: Whether timm implements its perceptrons as convolutions.
    """

    depths: tuple[int, int, int, int]
    widths: tuple[int, int, int, int]
    v2: bool = False
    convolutional: bool = False


class Stem(nnx.Module):
    """Normalized 4x4 patches of images: `(batch, height, …, channels)` to `(batch, height / 4, …, width)`."""

    def __init__(self, channels: int, width: int, rngs: nnx.Rngs) -> None:
        self.conv = Conv(channels, width, 4, strides=4, padding="VALID", use_bias=True, rngs=rngs)
        self.norm = LayerNorm(width, rngs=rngs)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        return self.norm(self.conv(x))


class Downsample(nnx.Module):
    """A downsampling of `(batch, height, width, in_features)` to `(batch, height / 2, width / 2, width)`."""

    def __init__(self, in_features: int, width: int, rngs: nnx.Rngs) -> None:
        self.norm = LayerNorm(in_features, rngs=rngs)
        self.conv = Conv(in_features, width, 2, strides=2, padding="VALID", use_bias=True, rngs=rngs)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        return self.conv(self.norm(x))


class ResponseNorm(nnx.Module):
    """Global response normalization of `(batch, height, width, channels)`.

    Each channel is scaled by its norm over the image, divided by the mean norm of all channels.
    """

    def __init__(self, width: int, rngs: nnx.Rngs) -> None:
        self.scale = nnx.Param(zeros(rngs.params(), (width,)))
        self.bias = nnx.Param(zeros(rngs.params(), (width,)))

    def __call__(self, x: jax.Array) -> jax.Array:
        norm = jnp.linalg.norm(x.astype(jnp.float32), axis=(1, 2), keepdims=True)
        response = (norm / (norm.mean(axis=-1, keepdims=True) + 1e-6)).astype(x.dtype)
        return x + x * response * self.scale[...].astype(x.dtype) + self.bias[...].astype(x.dtype)


class ConvNeXtBlock(nnx.Module):
    """A residual block of a depthwise 7x7 convolution, a normalization and a two-layer perceptron.

    It maps `(batch, height, width, channels)` to the same shape.
    """

    def __init__(self, width: int, v2: bool, drop_path: float, rngs: nnx.Rngs) -> None:
        self.conv = Conv(width, width, 7, padding=3, groups=width, use_bias=True, rngs=rngs)
        self.norm = LayerNorm(width, rngs=rngs)
        self.fc1 = Linear(width, 4 * width, rngs=rngs)
        self.fc2 = Linear(4 * width, width, rngs=rngs)
        if v2:
            self.grn = ResponseNorm(4 * width, rngs)
        else:
            self.scale = LayerScale(width, 1e-6, rngs)
        self.v2 = v2
        self.drop_path = DropPath(drop_path)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        y = gelu(self.fc1(self.norm(self.conv(x))))
        y = self.fc2(self.grn(y)) if self.v2 else self.scale(self.fc2(y))
        return x + self.drop_path(y, rngs=rngs)


class PooledNorm(nnx.Module):
    """Normalized global average pooling: `(batch, height, width, channels)` to `(batch, channels)`."""

    def __init__(self, width: int, rngs: nnx.Rngs) -> None:
        self.norm = LayerNorm(width, rngs=rngs)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        return self.norm(x.mean(axis=(1, 2)))


def build(shape: Shape, setting: Setting) -> Backbone:
    """Builds the blocks `stem`, `stages.0.blocks.0` …, `stages.1.downsample`, …, `norm`, `pre_logits`.

    The backbone maps images `(batch, height, width, channels)` to features `(batch, shape.widths[-1])`.
    """
    rngs, features, index = setting.rngs, shape.widths[0], 0
    blocks: dict[str, nnx.Module] = {"stem": Stem(setting.channels, features, rngs)}
    for stage, (depth, width) in enumerate(zip(shape.depths, shape.widths, strict=True)):
        if stage:
            blocks[f"stages.{stage}.downsample"] = Downsample(features, width, rngs)
        for repeat in range(depth):
            rate = setting.drop_path * index / (sum(shape.depths) - 1)
            blocks[f"stages.{stage}.blocks.{repeat}"] = ConvNeXtBlock(width, shape.v2, rate, rngs)
            index += 1
        features = width
    blocks["norm"] = PooledNorm(features, rngs)
    blocks[PRE_LOGITS] = Identity()
    return Backbone(blocks, features)


def _timm(shape: Shape, path: tuple[str, ...]) -> str | LibraryLayer | None:
    match path:
        case ("head", "classifier"):
            return "head.fc"
        case ("backbone", "norm", "norm"):
            return "head.norm"
        case ("backbone", "stem", layer):
            return f"stem.{0 if layer == 'conv' else 1}"
        case ("backbone", block, layer) if block.endswith("downsample"):
            return f"{block}.{0 if layer == 'norm' else 1}"
        case ("backbone", block, "scale", "gamma"):
            return f"{block}.gamma"
        case ("backbone", block, "fc1" | "fc2" as layer) if shape.convolutional:
            width = shape.widths[int(block.split(".")[1])] * (4 if layer == "fc2" else 1)
            return LibraryLayer((f"{block}.mlp.{layer}",), view=(1, 1, width), flat=False)
        case ("backbone", block, layer):
            known = {"conv": "conv_dw", "norm": "norm"}
            return f"{block}.{known.get(layer, f'mlp.{layer}')}"
    return None


def _torchvision(shape: Shape, path: tuple[str, ...]) -> str | LibraryLayer | None:
    """Returns the layer names of torchvision, which has no V2."""
    match path:
        case ("head", "classifier"):
            return "classifier.2"
        case ("backbone", "norm", "norm"):
            return "classifier.0"
        case ("backbone", "stem", layer):
            return f"features.0.{0 if layer == 'conv' else 1}"
        case ("backbone", block, *layers) if block.startswith("stages."):
            _, stage, *rest = block.split(".")
            if rest == ["downsample"]:
                return f"features.{2 * int(stage)}.{0 if layers[0] == 'norm' else 1}"
            module = f"features.{2 * int(stage) + 1}.{rest[1]}"
            if layers == ["scale", "gamma"]:
                return LibraryLayer((f"{module}.layer_scale",), trailing=2)
            index = {"conv": 0, "norm": 2, "fc1": 3, "fc2": 5}.get(layers[0])
            return None if index is None else f"{module}.block.{index}"
    return None


_TRANSFORMERS = {"conv": "dwconv", "norm": "layernorm", "fc1": "pwconv1", "grn": "grn", "fc2": "pwconv2"}


def _transformers(shape: Shape, path: tuple[str, ...]) -> str | LibraryLayer | None:
    """Returns the layer names of Hugging Face's image classifier."""
    module = "convnextv2" if shape.v2 else "convnext"
    return with_prefix(module, _transformers_base, classifier="classifier")(shape, path)


def _transformers_base(shape: Shape, path: tuple[str, ...]) -> str | LibraryLayer | None:
    match path:
        case ("backbone", "norm", "norm"):
            return "layernorm"
        case ("backbone", "stem", layer):
            return f"embeddings.{'patch_embeddings' if layer == 'conv' else 'layernorm'}"
        case ("backbone", block, *layers):
            _, stage, *rest = block.split(".")
            module = f"encoder.stages.{stage}"
            if rest == ["downsample"]:
                return f"{module}.downsampling_layer.{0 if layers[0] == 'norm' else 1}"
            module = f"{module}.layers.{rest[1]}"
            if layers == ["scale", "gamma"]:
                return f"{module}.layer_scale_parameter"
            return LibraryLayer(
                (f"{module}.{_TRANSFORMERS[layers[0]]}",), leading=3 if layers == ["grn"] else 0
            )
    return None


def _keras(shape: Shape, path: tuple[str, ...]) -> str | None:
    """Returns the layer names of Keras, which begin with the name of the network."""
    name = _NAMES.get(shape)
    if name is None:
        return None
    match path:
        case ("head", "classifier"):
            return f"{name}_head_dense"
        case ("backbone", "norm", "norm"):
            return f"{name}_head_layernorm"
        case ("backbone", "stem", layer):
            return f"{name}_stem/{name}_stem_{_KERAS[layer]}"
        case ("backbone", block, layer, *rest):
            stage, *repeat = re.findall(r"\d+", block)
            if not repeat:
                inside = f"{name}_downsampling_{{}}_{int(stage) - 1}"
                return f"{inside.format('block')}/{inside.format(_KERAS[layer])}"
            module = f"{name}_stage_{stage}_block_{repeat[0]}"
            known = {"conv": "depthwise_conv", "fc1": "pointwise_conv_1", "fc2": "pointwise_conv_2"}
            if rest == ["gamma"]:
                return f"{module}_layer_scale/gamma"
            return f"{module}_{known.get(layer, 'layernorm')}"
    return None


def _keras_order(shape: Shape, path: tuple[str, ...]) -> tuple[int, ...]:
    """Returns the position of a layer in its block; downsampling blocks begin with the normalization."""
    layers = ("norm", "conv") if path[1].endswith("downsample") else ("conv", "norm", "fc1", "fc2", "scale")
    return (layers.index(path[2]),)


_KERAS = {"conv": "conv", "norm": "layernorm"}
_V1 = {
    "convnext_tiny": Shape((3, 3, 9, 3), (96, 192, 384, 768)),
    "convnext_small": Shape((3, 3, 27, 3), (96, 192, 384, 768)),
    "convnext_base": Shape((3, 3, 27, 3), (128, 256, 512, 1024)),
    "convnext_large": Shape((3, 3, 27, 3), (192, 384, 768, 1536)),
    "convnext_xlarge": Shape((3, 3, 27, 3), (256, 512, 1024, 2048)),
}
_NAMES = {shape: name for name, shape in _V1.items()}
_V2 = {
    "convnextv2_atto": Shape((2, 2, 6, 2), (40, 80, 160, 320), v2=True, convolutional=True),
    "convnextv2_nano": Shape((2, 2, 8, 2), (80, 160, 320, 640), v2=True, convolutional=True),
    "convnextv2_tiny": Shape((3, 3, 9, 3), (96, 192, 384, 768), v2=True),
    "convnextv2_base": Shape((3, 3, 27, 3), (128, 256, 512, 1024), v2=True),
    "convnextv2_large": Shape((3, 3, 27, 3), (192, 384, 768, 1536), v2=True),
}

FAMILY = Family(
    name="convnext",
    variants={
        name: Variant(shape=shape, preprocessing=Preprocessing(mean=IMAGENET_MEAN, std=IMAGENET_STD))
        for name, shape in {**_V1, **_V2}.items()
    },
    build=build,
    layer_names={
        "timm": _timm,
        "torchvision": _torchvision,
        "transformers": _transformers,
        "transformers-base": _transformers_base,
        "keras": _keras,
    },
    keras_order=_keras_order,
)
