"""The image encoders of Perception Encoder: PE-Core, PE-Lang and PE-Spatial.

Source: Bolya et al. 2025, arXiv:2504.13181. The names of blocks and networks are timm's. PE-Core pools by
attention, and the classifier in its files is the projection into the space of images and texts. PE-Lang and
PE-Spatial have no normalization after the last block, and are read at the mean of the patches.
"""

import dataclasses
import functools

from flax import nnx

from transfer_jax.models.attention import Rope
from transfer_jax.models.backbone import PRE_LOGITS, Backbone
from transfer_jax.models.eva import timm_block
from transfer_jax.models.family import HALF, Family, LibraryLayer, Setting, Variant
from transfer_jax.models.preprocessing import Preprocessing
from transfer_jax.models.siglip import AttentionPool, timm_pool
from transfer_jax.models.transformer import (
    PatchMean,
    Pool,
    Shape,
    blocks_before_norm,
    blocks_before_pooling,
)
from transfer_jax.nn.layers import Identity

_POOL_HEADS = 8


def _build(shape: Shape, setting: Setting) -> Backbone:
    """Builds the blocks `embed`, `blocks.0` …, `pre_logits`; PE-Core has `norm`, `attn_pool` before the last.

    The backbone maps images `(batch, height, width, channels)` to features `(batch, shape.width)`.

    Raises:
        ValueError: If the image size is not a multiple of the patch size.
    """
    if shape.pool == "mean":
        blocks = blocks_before_norm(shape, setting)
        return Backbone({**blocks, PRE_LOGITS: PatchMean(shape.before)}, shape.width)
    blocks: dict[str, nnx.Module] = blocks_before_pooling(shape, setting)
    pool = dataclasses.replace(shape, heads=_POOL_HEADS, hidden=0)
    blocks["attn_pool"] = AttentionPool(pool, setting.rngs)
    return Backbone({**blocks, PRE_LOGITS: Identity()}, shape.width)


def _timm(shape: Shape, path: tuple[str, ...]) -> str | LibraryLayer | None:
    return timm_block(path) or timm_pool(shape, path)


_SHAPE = functools.partial(Shape, pre_norm=True, epsilon=1e-5, kind="")
_SIZES = {
    "tiny": functools.partial(_SHAPE, 192, 12, 3),
    "small": functools.partial(_SHAPE, 384, 12, 6),
    "base": functools.partial(_SHAPE, 768, 12, 12),
    "large": functools.partial(_SHAPE, 1024, 24, 16, patch=14),
    "gigantic": functools.partial(_SHAPE, 1536, 50, 16, patch=14, hidden=8960, tokens=0, positions=0),
}


def _variant(size: str, grid: int, *, pixels: int, pool: Pool = "token", **options: bool | int) -> Variant:
    """Returns a network whose rotary positions are those of a grid of patches."""
    shape = _SIZES[size](pool=pool)
    # The coordinates begin at 1 if there is a class token.
    rope = Rope(grid=grid, offset=float(shape.tokens), columns_first=True)
    shape = dataclasses.replace(shape, rope=rope, **options)
    preprocessing = Preprocessing(image_size=pixels, crop_fraction=1.0, mean=HALF, std=HALF)
    return Variant(shape=shape, preprocessing=preprocessing)


FAMILY = Family(
    name="perception_encoder",
    variants={
        "vit_pe_core_tiny_patch16_384": _variant("tiny", 24, pixels=384),
        "vit_pe_core_small_patch16_384": _variant("small", 24, pixels=384),
        "vit_pe_core_base_patch16_224": _variant("base", 14, pixels=224),
        "vit_pe_core_large_patch14_336": _variant("large", 24, pixels=336),
        "vit_pe_core_gigantic_patch14_448": _variant("gigantic", 32, pixels=448),
        "vit_pe_lang_large_patch14_448": _variant(
            "large", 32, pixels=448, pool="mean", layer_scale=True, depth=23
        ),
        "vit_pe_lang_gigantic_patch14_448": _variant(
            "gigantic", 32, pixels=448, pool="mean", layer_scale=True, depth=47
        ),
        "vit_pe_spatial_tiny_patch16_512": _variant("tiny", 32, pixels=512, pool="mean"),
        "vit_pe_spatial_small_patch16_512": _variant("small", 32, pixels=512, pool="mean"),
        "vit_pe_spatial_base_patch16_512": _variant("base", 32, pixels=512, pool="mean"),
        "vit_pe_spatial_large_patch14_448": _variant("large", 32, pixels=448, pool="mean"),
        "vit_pe_spatial_gigantic_patch14_448": _variant(
            "gigantic", 32, pixels=448, pool="mean", layer_scale=True
        ),
    },
    build=_build,
    layer_names={"timm": _timm},
)
