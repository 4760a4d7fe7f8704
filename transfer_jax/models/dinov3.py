"""DINOv3 vision transformers, with rotary positions and register tokens.

Source: Siméoni et al. 2025, arXiv:2508.10104. There are two networks of each size:

- `vit_*_dinov3` and, with biases of the queries and values, `vit_*_dinov3_qkvb` are timm's. They classify the
  mean of the patches.
- `dinov3_vits16` … `dinov3_vit7b16` are those of Meta and of transformers. They classify the class token.

According to timm, the published biases of the base, large and huge networks are zero. DINOv3's ConvNeXts are
weights of `convnext_tiny` … `large`. During training, the coordinates of the patches are not augmented.
"""

import dataclasses

from transfer_jax.models.attention import Rope
from transfer_jax.models.eva import timm_block
from transfer_jax.models.family import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Family,
    LibraryLayer,
    Variant,
    with_prefix,
)
from transfer_jax.models.preprocessing import Preprocessing
from transfer_jax.models.transformer import Shape, build, layer_of, timm
from transfer_jax.nn.activations import silu


def _shape(width: int, depth: int, heads: int, hidden: int = 0) -> Shape:
    """Returns the sizes of a network of timm without biases; its perceptrons are gated if `hidden` is set."""
    return Shape(
        width,
        depth,
        heads,
        registers=4,
        positions=0,
        absolute=False,
        rope=Rope(base=100.0, halves=True),
        pool="mean",
        bias="",
        layer_scale=True,
        hidden=hidden,
        epsilon=1e-5,
        kind="",
        **({"gated": True, "activation": silu} if hidden else {}),
    )


_SIZES = {
    "tiny": _shape(192, 12, 3),
    "small": _shape(384, 12, 6),
    "small_plus": _shape(384, 12, 6, 1536),
    "base": _shape(768, 12, 12),
    "large": _shape(1024, 24, 16),
    "huge_plus": _shape(1280, 32, 20, 5120),
    "7b": _shape(4096, 40, 32, 8192),
}
_META = {
    "s16": "small",
    "s16plus": "small_plus",
    "b16": "base",
    "l16": "large",
    "h16plus": "huge_plus",
    "7b16": "7b",
}


def _timm(shape: Shape, path: tuple[str, ...]) -> str | LibraryLayer | None:
    if shape.pool == "token":
        return None
    return timm_block(path, gates=shape.gated) or timm(shape, path)


_EMBED = {"patch": "patch_embeddings", "cls_token": "cls_token", "reg_token": "register_tokens"}
_LAYERS = {
    "norm1": "norm1",
    "attn/qkv": tuple(f"attention.{name}_proj" for name in "qkv"),
    "attn/q_bias": "attention.q_proj.bias",
    "attn/v_bias": "attention.v_proj.bias",
    "attn/proj": "attention.o_proj",
    "ls1/gamma": "layer_scale1.lambda1",
    "norm2": "norm2",
    "fc1": "mlp.up_proj",
    "fc2": "mlp.down_proj",
    "ls2/gamma": "layer_scale2.lambda1",
}
_GATED = {**_LAYERS, "fc1": ("mlp.gate_proj", "mlp.up_proj")}


def _transformers(shape: Shape, path: tuple[str, ...]) -> str | LibraryLayer | None:
    """Returns the layer names in the files of Hugging Face, which has no classifier."""
    match path:
        case _ if shape.pool != "token":
            return None
        case ("backbone", "embed", name):
            return f"embeddings.{_EMBED[name]}"
        case ("backbone", "norm", "norm"):
            return "norm"
        case ("backbone", block, *layers):
            return layer_of(_GATED if shape.gated else _LAYERS, layers, block.replace("blocks", "layer"))
    return None


def _transformers_5(shape: Shape, path: tuple[str, ...]) -> str | LibraryLayer | None:
    """Returns the layer names in a `state_dict` of transformers 5, where the blocks are a module `model`."""
    in_block = path[1].startswith("blocks.") if path[0] == "backbone" else False
    return (with_prefix("model", _transformers) if in_block else _transformers)(shape, path)


def _variant(shape: Shape, size: int) -> Variant:
    preprocessing = Preprocessing(image_size=size, crop_fraction=1.0, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    return Variant(shape=shape, preprocessing=preprocessing)


FAMILY = Family(
    name="dinov3",
    variants={
        **{
            f"vit_{size}_patch16_dinov3": _variant(shape, 256)
            for size, shape in _SIZES.items()
            if size != "tiny"
        },
        **{
            f"vit_{size}_patch16_dinov3_qkvb": _variant(dataclasses.replace(shape, bias="qv"), 256)
            for size, shape in _SIZES.items()
            if size != "7b"
        },
        **{
            f"dinov3_vit{name}": _variant(
                dataclasses.replace(_SIZES[size], pool="token", bias="" if size == "7b" else "qv"), 224
            )
            for name, size in _META.items()
        },
    },
    build=build,
    layer_names={"timm": _timm, "transformers-base": _transformers, "transformers-5": _transformers_5},
)
