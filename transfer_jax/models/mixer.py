"""MLP-Mixer.

Source: Tolstikhin et al. 2021, arXiv:2105.01601. The kernels that mix the patches are valid for one image
size, and must be trained from scratch for any other. The names of blocks and networks are timm's, and so is
the activation, which Google's code approximates by a hyperbolic tangent.
"""

import dataclasses

import jax
from flax import nnx

from transfer_jax.models.backbone import PRE_LOGITS, Backbone
from transfer_jax.models.family import HALF, Family, Setting, Variant
from transfer_jax.models.preprocessing import Preprocessing
from transfer_jax.models.transformer import Norm
from transfer_jax.nn.activations import gelu
from transfer_jax.nn.layers import Conv, DropPath, LayerNorm, Linear


@dataclasses.dataclass(frozen=True)
class Shape:
    """The sizes of a Mixer.

    Attributes:
        width: Number of channels of a patch.
        depth: Number of blocks.
        patch: Side of a patch in pixels.
    """

    width: int
    depth: int
    patch: int


class Stem(nnx.Module):
    """A linear patch embedding: `(batch, height, width, channels)` to `(batch, patches, width)`."""

    def __init__(self, shape: Shape, channels: int, rngs: nnx.Rngs) -> None:
        self.proj = Conv(
            channels,
            shape.width,
            shape.patch,
            strides=shape.patch,
            padding="VALID",
            use_bias=True,
            rngs=rngs,
        )

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        x = self.proj(x)
        return x.reshape(x.shape[0], -1, x.shape[-1])


class Perceptron(nnx.Module):
    """A two-layer perceptron over the last axis: `(…, features)` to the same shape."""

    def __init__(self, features: int, hidden: int, rngs: nnx.Rngs) -> None:
        self.fc1 = Linear(features, hidden, rngs=rngs)
        self.fc2 = Linear(hidden, features, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.fc2(gelu(self.fc1(x)))


class MixerBlock(nnx.Module):
    """A residual perceptron over the patches, then one over the channels, each after a normalization.

    It maps `(batch, patches, width)` to the same shape.
    """

    def __init__(self, width: int, patches: int, drop_path: float, rngs: nnx.Rngs) -> None:
        self.norm1 = LayerNorm(width, rngs=rngs)
        self.mlp_tokens = Perceptron(patches, width // 2, rngs)
        self.norm2 = LayerNorm(width, rngs=rngs)
        self.mlp_channels = Perceptron(width, 4 * width, rngs)
        self.drop_path = DropPath(drop_path, ndim=3)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        y = self.mlp_tokens(self.norm1(x).swapaxes(1, 2)).swapaxes(1, 2)
        x = x + self.drop_path(y, rngs=rngs)
        return x + self.drop_path(self.mlp_channels(self.norm2(x)), rngs=rngs)


class TokenPool(nnx.Module):
    """Average pooling over patches: `(batch, patches, width)` to `(batch, width)`."""

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        return x.mean(axis=1)


def build(shape: Shape, setting: Setting) -> Backbone:
    """Builds the blocks `stem`, `blocks.0` …, `norm`, `pre_logits`.

    The backbone maps images `(batch, height, width, channels)` to features `(batch, shape.width)`.

    Raises:
        ValueError: If the image size is not a multiple of the patch size.
    """
    if setting.image_size % shape.patch:
        raise ValueError(
            f"image_size must be a multiple of the patch of {shape.patch} pixels, got {setting.image_size}"
        )
    rngs, patches = setting.rngs, (setting.image_size // shape.patch) ** 2
    blocks: dict[str, nnx.Module] = {"stem": Stem(shape, setting.channels, rngs)}
    for index in range(shape.depth):
        rate = setting.drop_path * index / (shape.depth - 1)
        blocks[f"blocks.{index}"] = MixerBlock(shape.width, patches, rate, rngs)
    blocks["norm"] = Norm(shape.width, 1e-6, rngs)
    blocks[PRE_LOGITS] = TokenPool()
    return Backbone(blocks, shape.width)


def _timm(shape: Shape, path: tuple[str, ...]) -> str | None:
    match path:
        case ("head", "classifier"):
            return "head"
        case ("backbone", "norm", "norm"):
            return "norm"
        case ("backbone", *modules):
            return ".".join(modules)
    return None


def _google(shape: Shape, path: tuple[str, ...]) -> str | None:
    """Returns the layer names of vision_transformer and big_vision, which are the same."""
    match path:
        case ("head", "classifier"):
            return "head"
        case ("backbone", "stem", "proj"):
            return "stem"
        case ("backbone", "norm", "norm"):
            return "pre_head_layer_norm"
        case ("backbone", block, norm):
            return f"MixerBlock_{block.removeprefix('blocks.')}/LayerNorm_{int(norm[-1]) - 1}"
        case ("backbone", block, mixes, layer):
            inside = f"{mixes.removeprefix('mlp_').removesuffix('s')}_mixing/Dense_{int(layer[-1]) - 1}"
            return f"MixerBlock_{block.removeprefix('blocks.')}/{inside}"
    return None


_SIZES = {"s": (512, 8), "b": (768, 12), "l": (1024, 24)}

FAMILY = Family(
    name="mixer",
    variants={
        f"mixer_{size}{patch}_224": Variant(
            shape=Shape(width, depth, patch), preprocessing=Preprocessing(mean=HALF, std=HALF)
        )
        for size, (width, depth) in _SIZES.items()
        for patch in (32, 16)
    },
    build=build,
    layer_names={"timm": _timm, "vision_transformer": _google, "big_vision": _google},
)
