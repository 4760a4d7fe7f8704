"""EVA and EVA-02, also as image encoders of EVA-CLIP, and timm's vision transformers with rotary positions.

Sources: Fang et al. 2022, arXiv:2211.07636 (EVA); Fang et al. 2023, arXiv:2303.11331 (EVA-02); Sun et al.
2023, arXiv:2303.15389 (EVA-CLIP). The names of blocks and networks are timm's. The encoders of CLIP classify
the class token; the classifier in their files is the projection into the space of images and texts. All other
networks classify the mean of the patches.
"""

import functools

from transfer_jax.models.attention import Rope
from transfer_jax.models.clip import MEAN, STD
from transfer_jax.models.family import Family, LibraryLayer, Variant
from transfer_jax.models.preprocessing import Preprocessing
from transfer_jax.models.transformer import Shape, build, timm
from transfer_jax.models.vit import SIZES
from transfer_jax.nn.activations import silu

_QUERY, _KEY, _VALUE = (f"attn.{name}_proj" for name in "qkv")


def timm_block(path: tuple[str, ...], *, gates: bool = False, inputs: bool = False) -> LibraryLayer | None:
    """Returns the layers of a block that timm's EVA and ViT have under other names; None for all others.

    Args:
        path: Path of the layer.
        gates: Whether gates are layers of their own.
        inputs: Whether queries, keys and values are.
    """
    match path:
        case ("backbone", block, "ls1" | "ls2" as scale, "gamma"):
            return LibraryLayer((f"{block}.gamma_{scale[-1]}",))
        case ("backbone", block, "fc1") if gates:
            return LibraryLayer((f"{block}.mlp.fc1_g", f"{block}.mlp.fc1_x"))
        case ("backbone", block, "attn", "qkv") if inputs:
            return LibraryLayer(tuple(f"{block}.{name}" for name in (_QUERY, _KEY, _VALUE)))
        case ("backbone", block, "attn", "q_bias" | "v_bias" as name) if inputs:
            return LibraryLayer((f"{block}.{_QUERY if name == 'q_bias' else _VALUE}.bias",))
    return None


def _timm(shape: Shape, path: tuple[str, ...]) -> str | LibraryLayer | None:
    # Networks with a normalization inside their perceptrons have separate layers.
    return timm_block(path, gates=shape.norm_hidden, inputs=shape.norm_hidden) or timm(shape, path)


_SHAPE = functools.partial(Shape, patch=14, bias="qv", pool="mean_norm", kind="")
_GIANT = functools.partial(_SHAPE, 1408, 40, 16, hidden=6144)
_EVA02 = functools.partial(_SHAPE, gated=True, activation=silu, rope=Rope(grid=16))
_SUB_NORM = functools.partial(_EVA02, norm_hidden=True)
_EVA02_SIZES = {
    "tiny": functools.partial(_EVA02, 192, 12, 3, hidden=512),
    "small": functools.partial(_EVA02, 384, 12, 6, hidden=1024),
    "base": functools.partial(_SUB_NORM, 768, 12, 12, hidden=2048),
    "large": functools.partial(_SUB_NORM, 1024, 24, 16, hidden=2730),
}
_ROPE = functools.partial(
    Shape,
    tokens=0,
    positions=0,
    absolute=False,
    rope=Rope(grid=16),
    bias="qv",
    pool="mean_norm",
    layer_scale=True,
    kind="",
)


def _variants(shapes: dict[str, Shape]) -> dict[str, Variant]:
    return {name: _variant(shape, int(name.rpartition("_")[2])) for name, shape in shapes.items()}


def _variant(shape: Shape, size: int) -> Variant:
    crop_fraction = {224: 0.9, 256: 0.95}.get(size, 1.0)
    preprocessing = Preprocessing(image_size=size, crop_fraction=crop_fraction, mean=MEAN, std=STD)
    return Variant(shape=shape, preprocessing=preprocessing)


FAMILY = Family(
    name="eva",
    variants=_variants(
        {
            **{f"eva02_{size}_patch14_224": shape() for size, shape in _EVA02_SIZES.items()},
            **{f"eva02_{size}_patch14_336": _EVA02_SIZES[size]() for size in ("tiny", "small")},
            **{f"eva02_{size}_patch14_448": _EVA02_SIZES[size]() for size in ("base", "large")},
            **{f"eva_giant_patch14_{size}": _GIANT() for size in (224, 336, 560)},
            **{
                f"eva_large_patch14_{size}": SIZES["large"](patch=14, pool="mean_norm", kind="")
                for size in (196, 336)
            },
            "eva_giant_patch14_clip_224": _GIANT(pool="token"),
            "eva02_base_patch16_clip_224": _EVA02_SIZES["base"](patch=16, norm_attention=True, pool="token"),
            **{
                f"eva02_large_patch14_clip_{size}": _EVA02_SIZES["large"](norm_attention=True, pool="token")
                for size in (224, 336)
            },
            "vit_medium_patch16_rope_reg1_gap_256": _ROPE(512, 12, 8, registers=1),
            "vit_mediumd_patch16_rope_reg1_gap_256": _ROPE(512, 20, 8, registers=1, bias=""),
            "vit_betwixt_patch16_rope_reg4_gap_256": _ROPE(640, 12, 10, registers=4),
            "vit_base_patch16_rope_reg1_gap_256": _ROPE(768, 12, 12, registers=1),
        }
    ),
    build=build,
    layer_names={"timm": _timm},
)
