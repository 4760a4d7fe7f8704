"""Vision transformers: ViT, DeiT, DeiT-III, DINO, MAE, and DINOv2 with and without registers.

Sources: Dosovitskiy et al. 2020, arXiv:2010.11929; Touvron et al. 2020, arXiv:2012.12877 (DeiT); Touvron et
al. 2022, arXiv:2204.07118 (DeiT-III); Caron et al. 2021, arXiv:2104.14294 (DINO); He et al. 2021,
arXiv:2111.06377 (MAE); Oquab et al. 2023, arXiv:2304.07193 (DINOv2); Darcet et al. 2023, arXiv:2309.16588
(registers); Touvron et al. 2021, arXiv:2103.17239 (layer scale). The networks map images `(batch, height,
width, channels)` to the class token `(batch, width)`; `*_gap_*` map them to the mean of the patches. The
names of blocks and networks are timm's, except `dinov2_with_registers_*`: transformers keeps the position of
the class token, which timm adds to the token itself.

The position embeddings of DINOv2 are resampled as in its own code, which averages only if there are
registers; those of all other networks are resampled as in timm.

A distilled DeiT has two published classifiers. The classifier of the class token is loaded, as in
transformers. That of the distillation token is not supported, and neither is DINOv2's in transformers, which
also reads the mean of the patches: `skip=("^head_dist", "^classifier", "^pooler")` leaves them out. MAE's
decoder and mask are left out as well.
"""

import functools
from typing import Any

from transfer_jax.models.family import (
    HALF,
    IMAGENET_MEAN,
    IMAGENET_STD,
    TIMM_RESAMPLING,
    Family,
    LibraryLayer,
    Resampling,
    Variant,
)
from transfer_jax.models.preprocessing import Preprocessing
from transfer_jax.models.transformer import Shape, build, layer_of, timm
from transfer_jax.models.vit_google import big_vision, vision_transformer
from transfer_jax.nn.activations import silu

_TORCHVISION = {
    "norm1": "ln_1",
    "attn/qkv": "self_attention.in_proj_",
    "attn/proj": "self_attention.out_proj",
    "norm2": "ln_2",
    "fc1": "mlp.0",
    "fc2": "mlp.3",
}


def _torchvision(shape: Shape, path: tuple[str, ...]) -> str | LibraryLayer | None:
    """Returns the layer names of torchvision, which has plain ViT only."""
    match path:
        case ("head", "classifier"):
            return "heads.head"
        case ("backbone", "embed", name):
            known = {"patch": "conv_proj", "cls_token": "class_token", "pos_embed": "encoder.pos_embedding"}
            return known.get(name)
        case ("backbone", "norm", "norm"):
            return "encoder.ln"
        case ("backbone", block, *layers):
            index = block.removeprefix("blocks.")
            return layer_of(_TORCHVISION, layers, f"encoder.layers.encoder_layer_{index}")
    return None


_EMBED = {
    "patch": "patch_embeddings.projection",
    "cls_token": "cls_token",
    "dist_token": "distillation_token",
    "reg_token": "register_tokens",
    "pos_embed": "position_embeddings",
}
_IN_FILES = {
    "attn/qkv": tuple(f"attention.attention.{name}" for name in ("query", "key", "value")),
    "attn/proj": "attention.output.dense",
}
_IN_MEMORY = {
    "attn/qkv": tuple(f"attention.{name}_proj" for name in "qkv"),
    "attn/proj": "attention.o_proj",
}
_VIT_NORMS = {"norm1": "layernorm_before", "norm2": "layernorm_after"}
_DENSE = {"fc1": "mlp.fc1", "fc2": "mlp.fc2"}
_DINO = {
    **_DENSE,
    "norm1": "norm1",
    "norm2": "norm2",
    "ls1/gamma": "layer_scale1.lambda1",
    "ls2/gamma": "layer_scale2.lambda1",
}

_GATED = {"fc1": "mlp.weights_in", "fc2": "mlp.weights_out"}
_GATED_IN_MEMORY = {"fc1": ("mlp.gate_proj", "mlp.up_proj"), "fc2": "mlp.down_proj"}


def _transformers(
    shape: Shape, path: tuple[str, ...], *, files: bool = True, base: bool = False
) -> str | LibraryLayer | None:
    """Returns the layer names of Hugging Face.

    Args:
        shape: Sizes of the network.
        path: Path of a layer.
        files: True for the files that `save_pretrained` writes, False for a `state_dict` of transformers 5.
        base: Whether it is the model without a classifier.
    """
    if not shape.kind:
        return None
    prefix, dino = "" if base else f"{shape.kind}.", shape.kind.startswith("dino")
    match path:
        case ("head", "classifier"):  # DINOv2's also reads the mean of the patches
            return None if dino or base else "classifier"
        case ("backbone", "embed", name):
            return f"{prefix}embeddings.{_EMBED[name]}"
        case ("backbone", "norm", "norm"):
            return f"{prefix}layernorm"
        case ("backbone", block, *inside):
            dense = {"fc1": "intermediate.dense", "fc2": "output.dense"} if files else _DENSE
            table = _DINO if dino else {**_VIT_NORMS, **dense}
            table = {**table, **((_GATED if files else _GATED_IN_MEMORY) if shape.gated else {})}
            table = {**table, **(_IN_FILES if files else _IN_MEMORY)}
            layers = "encoder.layer" if files or dino else "layers"
            return layer_of(table, inside, f"{prefix}{layers}.{block.removeprefix('blocks.')}")
    return None


def _variant(
    shape: Shape, *, size: int = 224, half: bool = False, resampling: Resampling = TIMM_RESAMPLING
) -> Variant:
    preprocessing = Preprocessing(
        image_size=size,
        crop_fraction=1.0 if size > 224 else 0.9,
        mean=HALF if half else IMAGENET_MEAN,
        std=HALF if half else IMAGENET_STD,
    )
    return Variant(shape=shape, preprocessing=preprocessing, resampling=resampling)


SIZES = {
    "tiny": functools.partial(Shape, 192, 12, 3),
    "small": functools.partial(Shape, 384, 12, 6),
    "base": functools.partial(Shape, 768, 12, 12),
    "large": functools.partial(Shape, 1024, 24, 16),
    "huge": functools.partial(Shape, 1280, 32, 16),
    "giant": functools.partial(Shape, 1408, 40, 16, hidden=6144),
    "gigantic": functools.partial(Shape, 1664, 48, 16, hidden=8192),
    "wee": functools.partial(Shape, 256, 14, 4, hidden=1280),
    "little": functools.partial(Shape, 320, 14, 5, hidden=1792),
    "medium": functools.partial(Shape, 512, 12, 8),
    "mediumd": functools.partial(Shape, 512, 20, 8),
    "betwixt": functools.partial(Shape, 640, 12, 10),
}
_DINOV2 = {
    size: functools.partial(SIZES[size], patch=14, layer_scale=True) for size in ("small", "base", "large")
} | {
    "giant": functools.partial(
        Shape, 1536, 40, 24, patch=14, layer_scale=True, hidden=4096, gated=True, activation=silu
    )
}


def _of_name(name: str, **options: Any) -> Shape:
    """Returns the sizes of a network with a name such as `vit_small_patch16_224`, of `SIZES` and a patch."""
    _, size, patch, *_ = name.split("_")
    return SIZES[size](patch=int(patch.removeprefix("patch")), **options)


def _pixels(name: str) -> int:
    """Returns the image size at the end of a name."""
    return int(name.partition(".")[0].rpartition("_")[2])


def _gap(name: str) -> Shape:
    """Returns the sizes of a network with register tokens that classifies the mean of the patches."""
    registers = int(name.split("_")[3].removeprefix("reg"))
    scale = not name.startswith("vit_base")
    return _of_name(
        name, tokens=0, positions=0, registers=registers, pool="mean_norm", layer_scale=scale, kind=""
    )


FAMILY = Family(
    name="vit",
    variants={
        **{
            name: _variant(_of_name(name), size=_pixels(name), half=True)
            for name in (
                "vit_tiny_patch16_224",
                "vit_small_patch32_224",
                "vit_small_patch16_224",
                "vit_base_patch32_224",
                "vit_base_patch16_224",
                "vit_base_patch8_224",
                "vit_large_patch32_224",
                "vit_large_patch16_224",
                "vit_huge_patch14_224",
                "vit_tiny_patch16_384",
                "vit_small_patch32_384",
                "vit_small_patch16_384",
                "vit_base_patch32_384",
                "vit_base_patch16_384",
                "vit_large_patch32_384",
                "vit_large_patch16_384",
            )
        },
        **{
            name: _variant(_of_name(name))
            for name in (
                "vit_small_patch16_224.dino",
                "vit_small_patch8_224.dino",
                "vit_base_patch16_224.dino",
                "vit_base_patch8_224.dino",
                "vit_base_patch16_224.mae",
                "vit_large_patch16_224.mae",
                "vit_huge_patch14_224.mae",
            )
        },
        "vit_nano_patch8_32": _variant(Shape(32, 3, 2, patch=8), size=32),  # for tests
        **{f"deit_{size}_patch16_224": _variant(SIZES[size]()) for size in ("tiny", "small", "base")},
        **{
            f"deit_{size}_distilled_patch16_224": _variant(SIZES[size](tokens=2, positions=2, kind="deit"))
            for size in ("tiny", "small", "base")
        },
        **{
            name: _variant(_of_name(name, positions=0, layer_scale=True, kind=""), size=_pixels(name))
            for name in (
                "deit3_small_patch16_224",
                "deit3_small_patch16_384",
                "deit3_medium_patch16_224",
                "deit3_base_patch16_224",
                "deit3_base_patch16_384",
                "deit3_large_patch16_224",
                "deit3_large_patch16_384",
                "deit3_huge_patch14_224",
            )
        },
        **{
            f"vit_{size}_patch14_dinov2": _variant(
                shape(kind="dinov2"), size=518, resampling=Resampling(antialias=False, offset=0.1)
            )
            for size, shape in _DINOV2.items()
        },
        **{
            f"vit_{size}_patch14_reg4_dinov2": _variant(shape(registers=4, positions=0, kind=""), size=518)
            for size, shape in _DINOV2.items()
        },
        **{
            f"dinov2_with_registers_{size}": _variant(
                shape(registers=4, kind="dinov2_with_registers"), size=518
            )
            for size, shape in _DINOV2.items()
        },
        **{
            name: _variant(_gap(name), size=_pixels(name), half=True)
            for name in (
                "vit_wee_patch16_reg1_gap_256",
                "vit_little_patch16_reg1_gap_256",
                "vit_little_patch16_reg4_gap_256",
                "vit_medium_patch16_reg1_gap_256",
                "vit_medium_patch16_reg4_gap_256",
                "vit_mediumd_patch16_reg4_gap_256",
                "vit_mediumd_patch16_reg4_gap_384",
                "vit_betwixt_patch16_reg1_gap_256",
                "vit_betwixt_patch16_reg4_gap_256",
                "vit_betwixt_patch16_reg4_gap_384",
                "vit_base_patch16_reg4_gap_256",
            )
        },
    },
    build=build,
    layer_names={
        "timm": timm,
        "torchvision": _torchvision,
        "vision_transformer": vision_transformer,
        "big_vision": big_vision,
        "transformers": _transformers,
        "transformers-base": functools.partial(_transformers, base=True),
        "transformers-5": functools.partial(_transformers, files=False),
    },
    ignored_keys=(r"^head_dist\.", r"^((vit|deit)\.)?pooler\.", r"^decoder[._]"),
)
