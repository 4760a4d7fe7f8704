"""Vision transformers: ViT, DeiT, and DINOv2 with and without registers.

Sources: Dosovitskiy et al. 2020, arXiv:2010.11929; Touvron et al. 2020, arXiv:2012.12877 (DeiT); Oquab et al.
2023, arXiv:2304.07193 (DINOv2); Darcet et al. 2023, arXiv:2309.16588 (registers); Touvron et al. 2021,
arXiv:2103.17239 (layer scale). Names of blocks and networks are timm's.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from flax import nnx

from transfer_jax.models.backbone import PRE_LOGITS, Backbone
from transfer_jax.models.family import HALF, IMAGENET_MEAN, IMAGENET_STD, Family, Setting, Variant
from transfer_jax.models.layers import Conv, DropPath, LayerScale
from transfer_jax.models.preprocessing import Preprocessing


@dataclasses.dataclass(frozen=True)
class Shape:
    """Width, blocks, heads, side of a patch in pixels, registers, and whether branches have a learnt scale.

    With registers, the class token has no position.
    """

    width: int
    depth: int
    heads: int
    patch: int = 16
    registers: int = 0
    layer_scale: bool = False

    @property
    def positions_of_tokens(self) -> int:
        """Positions ahead of those of the patches."""
        return 0 if self.registers else 1


class Embed(nnx.Module):
    """Patches, each mapped linearly to a token, with positions; the class token and registers stand first."""

    def __init__(self, shape: Shape, setting: Setting) -> None:
        grid, rngs = setting.image_size // shape.patch, setting.rngs
        normal = nnx.initializers.normal(0.02)
        self.patch = Conv(
            setting.channels,
            shape.width,
            shape.patch,
            strides=shape.patch,
            padding="VALID",
            use_bias=True,
            rngs=rngs,
        )
        self.cls_token = nnx.Param(normal(rngs.params(), (1, 1, shape.width)))
        if shape.registers:
            self.reg_token = nnx.Param(normal(rngs.params(), (1, shape.registers, shape.width)))
        positions = grid * grid + shape.positions_of_tokens
        self.pos_embed = nnx.Param(normal(rngs.params(), (1, positions, shape.width)))
        self.shape = shape

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        x = self.patch(x)
        x = x.reshape(x.shape[0], -1, x.shape[-1])
        token = jnp.broadcast_to(self.cls_token[...], (x.shape[0], 1, x.shape[-1])).astype(x.dtype)
        positions = self.pos_embed[...].astype(x.dtype)
        if not self.shape.registers:
            return jnp.concatenate([token, x], axis=1) + positions
        registers = jnp.broadcast_to(self.reg_token[...], (x.shape[0], *self.reg_token.shape[1:]))
        return jnp.concatenate([token, registers.astype(x.dtype), x + positions], axis=1)


class Attention(nnx.Module):
    """Multi-head self-attention over tokens `(batch, tokens, width)`; one kernel for all three inputs."""

    def __init__(self, width: int, heads: int, rngs: nnx.Rngs) -> None:
        self.qkv = nnx.Linear(width, 3 * width, rngs=rngs)
        self.proj = nnx.Linear(width, width, rngs=rngs)
        self.heads = heads

    def __call__(self, x: jax.Array) -> jax.Array:
        batch, tokens, width = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.heads, width // self.heads)
        query, key, value = (qkv[:, :, index] for index in range(3))
        return self.proj(jax.nn.dot_product_attention(query, key, value).reshape(x.shape))


class TransformerBlock(nnx.Module):
    """Attention and a two-layer perceptron, each normalized before, scaled and added."""

    def __init__(self, shape: Shape, drop_path: float, rngs: nnx.Rngs) -> None:
        width = shape.width
        self.norm1 = nnx.LayerNorm(width, rngs=rngs)
        self.attn = Attention(width, shape.heads, rngs)
        self.norm2 = nnx.LayerNorm(width, rngs=rngs)
        self.fc1 = nnx.Linear(width, 4 * width, rngs=rngs)
        self.fc2 = nnx.Linear(4 * width, width, rngs=rngs)
        if shape.layer_scale:
            self.ls1, self.ls2 = LayerScale(width, 1e-5), LayerScale(width, 1e-5)
        self.scaled = shape.layer_scale
        self.drop_path = DropPath(drop_path, ndim=3)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        y = self.attn(self.norm1(x))
        x = x + self.drop_path(self.ls1(y) if self.scaled else y, rngs=rngs)
        y = self.fc2(jax.nn.gelu(self.fc1(self.norm2(x)), approximate=False))
        return x + self.drop_path(self.ls2(y) if self.scaled else y, rngs=rngs)


class Norm(nnx.Module):
    """The normalization behind the last block."""

    def __init__(self, width: int, rngs: nnx.Rngs) -> None:
        self.norm = nnx.LayerNorm(width, rngs=rngs)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        return self.norm(x)


class ClassToken(nnx.Module):
    """The first token: `(batch, tokens, width)` to `(batch, width)`."""

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        return x[:, 0]


def build(shape: Shape, setting: Setting) -> Backbone:
    """The blocks `embed`, `blocks.0` …, `norm`, `pre_logits`.

    Raises:
        ValueError: If the images are no multiple of the patches.
    """
    if setting.image_size % shape.patch:
        raise ValueError(
            f"image_size must be a multiple of the patch of {shape.patch} pixels, got {setting.image_size}"
        )
    blocks: dict[str, nnx.Module] = {"embed": Embed(shape, setting)}
    for index in range(shape.depth):
        rate = setting.drop_path * index / max(shape.depth - 1, 1)
        blocks[f"blocks.{index}"] = TransformerBlock(shape, rate, setting.rngs)
    blocks["norm"] = Norm(shape.width, setting.rngs)
    blocks[PRE_LOGITS] = ClassToken()
    return Backbone(blocks, shape.width)


def _timm(shape: Shape, path: tuple[str, ...]) -> str | None:
    match path:
        case ("head", "classifier"):
            return "head"
        case ("backbone", "embed", "patch"):
            return "patch_embed.proj"
        case ("backbone", "embed", name):
            return name
        case ("backbone", "norm", "norm"):
            return "norm"
        case ("backbone", block, "fc1" | "fc2" as layer):
            return f"{block}.mlp.{layer}"
        case ("backbone", block, *layers):
            return ".".join((block, *layers))
    return None


_TORCHVISION = {
    ("norm1",): "ln_1",
    ("attn", "qkv"): "self_attention.in_proj_",
    ("attn", "proj"): "self_attention.out_proj",
    ("norm2",): "ln_2",
    ("fc1",): "mlp.0",
    ("fc2",): "mlp.3",
}


def _torchvision(shape: Shape, path: tuple[str, ...]) -> str | None:
    """The names of torchvision, which has plain ViT only."""
    match path:
        case ("head", "classifier"):
            return "heads.head"
        case ("backbone", "embed", name):
            known = {"patch": "conv_proj", "cls_token": "class_token", "pos_embed": "encoder.pos_embedding"}
            return known.get(name)
        case ("backbone", "norm", "norm"):
            return "encoder.ln"
        case ("backbone", block, *layers) if tuple(layers) in _TORCHVISION:
            index = block.removeprefix("blocks.")
            return f"encoder.layers.encoder_layer_{index}.{_TORCHVISION[tuple(layers)]}"
    return None


def _variant(shape: Shape, *, size: int = 224, half: bool = True) -> Variant:
    preprocessing = Preprocessing(
        image_size=size,
        crop_fraction=1.0 if size > 224 else 0.9,
        mean=HALF if half else IMAGENET_MEAN,
        std=HALF if half else IMAGENET_STD,
    )
    return Variant(shape=shape, preprocessing=preprocessing)


_SIZES = {
    "tiny": functools.partial(Shape, 192, 12, 3),
    "small": functools.partial(Shape, 384, 12, 6),
    "base": functools.partial(Shape, 768, 12, 12),
    "large": functools.partial(Shape, 1024, 24, 16),
    "huge": functools.partial(Shape, 1280, 32, 16),
}

FAMILY = Family(
    name="vit",
    variants={
        **{
            f"vit_{size}_patch{patch}_224": _variant(_SIZES[size](patch=patch))
            for size, patch in (
                ("tiny", 16),
                ("small", 32),
                ("small", 16),
                ("base", 32),
                ("base", 16),
                ("base", 8),
                ("large", 32),
                ("large", 16),
                ("huge", 14),
            )
        },
        **{
            f"deit_{size}_patch16_224": _variant(_SIZES[size](), half=False)
            for size in ("tiny", "small", "base")
        },
        **{
            f"vit_{size}_patch14_{'reg4_' * bool(registers)}dinov2": _variant(
                _SIZES[size](patch=14, registers=registers, layer_scale=True), size=518, half=False
            )
            for size in ("small", "base", "large")
            for registers in (0, 4)
        },
    },
    build=build,
    namings={"timm": _timm, "torchvision": _torchvision},
)
