"""Hiera: a plain hierarchical vision transformer, tiny to huge, and small with absolute window positions.

Sources: Ryali et al. 2023, arXiv:2306.00989; Bolya et al. 2023, arXiv:2311.05613 (absolute windows: positions
of the whole image, which are resampled, and positions in a window, which are repeated). The names of blocks
and networks are timm's. timm sorts tokens by windows; here they are feature maps, with the same values.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from transfer_jax.models.backbone import PRE_LOGITS, Backbone
from transfer_jax.models.family import IMAGENET_MEAN, IMAGENET_STD, Family, Setting, Variant, with_prefix
from transfer_jax.models.preprocessing import Preprocessing
from transfer_jax.models.transformer import Norm, timm_layer
from transfer_jax.nn.activations import gelu
from transfer_jax.nn.attention import attend
from transfer_jax.nn.initializers import normal
from transfer_jax.nn.layers import Conv, DropPath, Identity, LayerNorm, LayerScale, Linear

_STRIDE, _WINDOW = 4, 8
"""Pixels between patches, and the side of the windows of the first stage, in patches."""


@dataclasses.dataclass(frozen=True)
class Shape:
    """The sizes of a Hiera.

    Attributes:
        depths: Number of blocks of each stage.
        width: Number of channels of the first stage; each later stage has twice as many.
        heads: Number of attention heads of the first stage; each later stage has twice as many.
        grid: Side of the grid of positions of the whole image, for absolute windows; 0 for one position for
            each patch. With absolute windows, residual branches have a learned scale, and the first block of
            a stage has no linear layer for its input.
    """

    depths: tuple[int, int, int, int]
    width: int
    heads: int
    grid: int = 0


class Embed(nnx.Module):
    """Overlapping 7x7 patches with positions: `(batch, height, …)` to `(batch, height / 4, …)`.

    The positions of absolute windows have the layout of PyTorch, `(1, width, height, width)`.
    """

    def __init__(self, shape: Shape, setting: Setting) -> None:
        rngs, side, draw = setting.rngs, setting.image_size // _STRIDE, normal(0.02)
        self.patch = Conv(
            setting.channels, shape.width, 7, strides=_STRIDE, padding=3, use_bias=True, rngs=rngs
        )
        size = (shape.width, shape.grid, shape.grid) if shape.grid else (side**2, shape.width)
        self.pos_embed = nnx.Param(draw(rngs.params(), (1, *size)))
        if shape.grid:
            self.pos_embed_win = nnx.Param(draw(rngs.params(), (1, shape.width, _WINDOW, _WINDOW)))
        self.grid = shape.grid

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        x = self.patch(x)
        positions = self.pos_embed[...]
        if self.grid:
            size = (1, *x.shape[1:])
            positions = jax.image.resize(positions.transpose(0, 2, 3, 1), size, "bicubic")
            window = self.pos_embed_win[...].transpose(0, 2, 3, 1)
            positions += jnp.tile(window, (1, size[1] // _WINDOW, size[2] // _WINDOW, 1))
        return x + positions.reshape(1, *x.shape[1:]).astype(x.dtype)


class Attention(nnx.Module):
    """Multi-head attention: `(batch, height, width, in_features)` to `(batch, height, width, features)`.

    Args:
        in_features: Number of channels of the input.
        features: Number of channels of the output.
        heads: Number of attention heads.
        window: Side of the windows that attention is restricted to, in tokens of the input; 0 for none.
        pools: Whether the queries are pooled to their maximum in 2x2 tokens, which halves height and width.
        rngs: Source of the initial parameters.
    """

    def __init__(
        self, in_features: int, features: int, heads: int, window: int, pools: bool, rngs: nnx.Rngs
    ) -> None:
        self.qkv = Linear(in_features, 3 * features, rngs=rngs)
        self.proj = Linear(features, features, rngs=rngs)
        self.heads, self.window, self.pools = heads, window, pools

    def __call__(self, x: jax.Array) -> jax.Array:
        query, *others = jnp.split(self.qkv(x), 3, axis=-1)
        query = _blocks_of_four(query).max(axis=(2, 4)) if self.pools else query
        batch, height, width, features = query.shape
        windows = (x.shape[1] // self.window, x.shape[2] // self.window) if self.window else (1, 1)
        query, key, value = (self._windows(tokens, *windows) for tokens in (query, *others))
        x = attend(query, key, value)
        x = x.reshape(batch, *windows, height // windows[0], width // windows[1], features)
        return self.proj(x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height, width, features))

    def _windows(self, x: jax.Array, down: int, right: int) -> jax.Array:
        """Returns the tokens of each window, `(batch x windows, tokens, heads, channels)`."""
        batch, height, width, features = x.shape
        x = x.reshape(batch, down, height // down, right, width // right, features)
        return x.transpose(0, 1, 3, 2, 4, 5).reshape(
            batch * down * right, -1, self.heads, features // self.heads
        )


def _blocks_of_four(x: jax.Array) -> jax.Array:
    """Returns maps `(batch, height, width, …)` as `(batch, height / 2, 2, width / 2, 2, …)`."""
    batch, height, width, features = x.shape
    return x.reshape(batch, height // 2, 2, width // 2, 2, features)


class Block(nnx.Module):
    """A residual attention and a residual two-layer perceptron, each after a normalization.

    It maps `(batch, height, width, in_features)` to `(batch, height, width, features)`. If the numbers of
    features differ, height and width are halved.

    Args:
        attention: Attention module.
        in_features: Number of channels of the input.
        features: Number of channels of the output.
        plain: Whether the input is pooled without a linear layer, and residual branches have a learned scale.
        drop_path: Rate of stochastic depth.
        rngs: Source of the initial parameters.
    """

    def __init__(
        self,
        attention: Attention,
        in_features: int,
        features: int,
        *,
        plain: bool,
        drop_path: float,
        rngs: nnx.Rngs,
    ) -> None:
        self.norm1 = LayerNorm(in_features, rngs=rngs)
        if attention.pools and not plain:
            self.proj = Linear(in_features, features, rngs=rngs)
        self.attn = attention
        self.norm2 = LayerNorm(features, rngs=rngs)
        self.fc1 = Linear(features, 4 * features, rngs=rngs)
        self.fc2 = Linear(4 * features, features, rngs=rngs)
        if plain:
            self.ls1, self.ls2 = LayerScale(features, 1e-5, rngs), LayerScale(features, 1e-5, rngs)
        self.plain = plain
        self.drop_path = DropPath(drop_path)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        normalized = self.norm1(x)
        if self.attn.pools and self.plain:
            fours = _blocks_of_four(x)
            x = jnp.concatenate([fours.max(axis=(2, 4)), fours.mean(axis=(2, 4))], axis=-1)
        elif self.attn.pools:
            x = _blocks_of_four(self.proj(normalized)).max(axis=(2, 4))
        y = self.attn(normalized)
        x = x + self.drop_path(self.ls1(y) if self.plain else y, rngs=rngs)
        y = self.fc2(gelu(self.fc1(self.norm2(x))))
        return x + self.drop_path(self.ls2(y) if self.plain else y, rngs=rngs)


class PooledNorm(Norm):
    """Normalized global average pooling: `(batch, height, width, channels)` to `(batch, channels)`."""

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        return self.norm(x.mean(axis=(1, 2)))


def build(shape: Shape, setting: Setting) -> Backbone:
    """Builds the blocks `embed`, `blocks.0` …, `norm`, `pre_logits`.

    The backbone maps images `(batch, height, width, channels)` to features `(batch, 8 x shape.width)`. The
    first two stages attend in windows; so does the first block of the third, whose input is of the second.

    Raises:
        ValueError: If the image size is not a multiple of 32 pixels.
    """
    if setting.image_size % (_STRIDE * _WINDOW):
        raise ValueError(
            f"image_size must be a multiple of the windows of {_STRIDE * _WINDOW} pixels, "
            f"got {setting.image_size}"
        )
    rngs, width, index = setting.rngs, shape.width, 0
    blocks: dict[str, nnx.Module] = {"embed": Embed(shape, setting)}
    for stage, depth in enumerate(shape.depths):
        for repeat in range(depth):
            pools = stage > 0 and repeat == 0
            of_input = stage - pools
            features, heads = shape.width << stage, shape.heads << stage
            window = _WINDOW >> of_input if of_input < 2 else 0
            blocks[f"blocks.{index}"] = Block(
                Attention(width, features, heads, window, pools, rngs),
                width,
                features,
                plain=shape.grid > 0,
                drop_path=setting.drop_path * index / (sum(shape.depths) - 1),
                rngs=rngs,
            )
            width, index = features, index + 1
    blocks["norm"] = PooledNorm(width, 1e-6, rngs)
    blocks[PRE_LOGITS] = Identity()
    return Backbone(blocks, width)


def _timm(shape: Shape, path: tuple[str, ...]) -> str | None:
    match path:
        case ("head", "classifier"):
            return "head.fc"
        case ("backbone", "norm", "norm"):
            return "head.norm"
        case ("backbone", "embed", name):
            return "patch_embed.proj" if name == "patch" else name
    return timm_layer(path)


_TRANSFORMERS = {"norm1": "layernorm_before", "norm2": "layernorm_after", "fc1": "mlp.fc1", "fc2": "mlp.fc2"}


def stage_of(shape: Shape, index: int) -> tuple[int, int]:
    """Returns the stage of a block, and its index there."""
    for stage, depth in enumerate(shape.depths):
        if index < depth:
            return stage, index
        index -= depth
    raise ValueError(f"no block {index} after the last of {sum(shape.depths)}")


def _transformers(shape: Shape, path: tuple[str, ...]) -> str | None:
    """Returns the layer names of Hugging Face, which has no absolute windows."""
    match path:
        case _ if shape.grid:
            return None
        case ("backbone", "norm", "norm"):
            return "pooler.layernorm"
        case ("backbone", "embed", name):
            known = {"patch": "patch_embeddings.projection", "pos_embed": "position_embeddings"}
            return f"embeddings.{known[name]}"
        case ("backbone", block, first, *rest):
            stage, repeat = stage_of(shape, int(block.split(".")[1]))
            return ".".join(
                (f"encoder.stages.{stage}.layers.{repeat}", _TRANSFORMERS.get(first, first), *rest)
            )
    return None


_SHAPES = {
    "hiera_tiny_224": Shape((1, 2, 7, 2), 96, 1),
    "hiera_small_224": Shape((1, 2, 11, 2), 96, 1),
    "hiera_base_224": Shape((2, 3, 16, 3), 96, 1),
    "hiera_base_plus_224": Shape((2, 3, 16, 3), 112, 2),
    "hiera_large_224": Shape((2, 6, 36, 4), 144, 2),
    "hiera_huge_224": Shape((2, 6, 36, 4), 256, 4),
    "hiera_small_abswin_256": Shape((1, 2, 11, 2), 96, 1, grid=16),
}


def _variant(name: str, shape: Shape) -> Variant:
    preprocessing = Preprocessing(
        image_size=int(name.rpartition("_")[2]),
        crop_fraction=0.95 if shape.grid else 0.9,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
    )
    return Variant(shape=shape, preprocessing=preprocessing)


FAMILY = Family(
    name="hiera",
    variants={name: _variant(name, shape) for name, shape in _SHAPES.items()},
    build=build,
    layer_names={
        "timm": _timm,
        "transformers": with_prefix("hiera", _transformers, classifier="classifier"),
        "transformers-base": _transformers,
    },
)
