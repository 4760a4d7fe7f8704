"""BEiT and BEiTv2: vision transformers with relative position biases in each block.

Sources: Bao et al. 2021, arXiv:2106.08254; Peng et al. 2022, arXiv:2208.06366 (BEiTv2). The networks classify
the mean of the patches. The names of blocks and networks are timm's. The biases are resampled for other image
sizes with bicubic weights; those that concern the class token are kept.
"""

import functools

from transfer_jax.models.eva import timm_block
from transfer_jax.models.family import (
    HALF,
    IMAGENET_MEAN,
    IMAGENET_STD,
    Family,
    LibraryLayer,
    Resampling,
    Variant,
    with_prefix,
)
from transfer_jax.models.preprocessing import Preprocessing
from transfer_jax.models.transformer import Shape, build, layer_of, timm
from transfer_jax.models.vit import SIZES


def _timm(shape: Shape, path: tuple[str, ...]) -> str | LibraryLayer | None:
    return timm_block(path) or timm(shape, path)


_TABLE = "relative_position_bias_table"
_LAYERS = {
    "norm1": "layernorm_before",
    "ls1/gamma": "lambda_1",
    "norm2": "layernorm_after",
    "ls2/gamma": "lambda_2",
}
_IN_FILES = {
    **_LAYERS,
    "attn/qkv": tuple(f"attention.attention.{name}" for name in ("query", "key", "value")),
    "attn/q_bias": "attention.attention.query.bias",
    "attn/v_bias": "attention.attention.value.bias",
    f"attn/{_TABLE}": f"attention.attention.relative_position_bias.{_TABLE}",
    "attn/proj": "attention.output.dense",
    "fc1": "intermediate.dense",
    "fc2": "output.dense",
}
_IN_MEMORY = {
    **_LAYERS,
    "attn/qkv": tuple(f"attention.{name}_proj" for name in "qkv"),
    "attn/q_bias": "attention.q_proj.bias",
    "attn/v_bias": "attention.v_proj.bias",
    f"attn/{_TABLE}": f"relative_position_bias.{_TABLE}",
    "attn/proj": "attention.o_proj",
    "fc1": "mlp.fc1",
    "fc2": "mlp.fc2",
}
_EMBED = {"patch": "patch_embeddings.projection", "cls_token": "cls_token"}


def _transformers(shape: Shape, path: tuple[str, ...], *, files: bool = True) -> str | LibraryLayer | None:
    """Returns the layer names of Hugging Face, in its files or in a `state_dict` of transformers 5."""
    match path:
        case ("backbone", "embed", name):
            return f"embeddings.{_EMBED[name]}"
        case ("backbone", "fc_norm", "norm"):
            return "pooler.layernorm"
        case ("backbone", block, *layers):
            layer = f"{'encoder.layer' if files else 'layers'}.{block.removeprefix('blocks.')}"
            return layer_of(_IN_FILES if files else _IN_MEMORY, layers, layer)
    return None


def _variant(name: str) -> Variant:
    kind, size, _, pixels = name.split("_")
    shape = SIZES[size](
        positions=0, absolute=False, relative=True, pool="mean_norm", bias="qv", layer_scale=True, kind="beit"
    )
    preprocessing = Preprocessing(
        image_size=int(pixels),
        crop_fraction=0.9 if pixels == "224" else 1.0,
        mean=IMAGENET_MEAN if kind == "beitv2" else HALF,
        std=IMAGENET_STD if kind == "beitv2" else HALF,
    )
    return Variant(shape=shape, preprocessing=preprocessing, resampling=Resampling(antialias=False))


FAMILY = Family(
    name="beit",
    variants={
        name: _variant(name)
        for name in (
            "beit_base_patch16_224",
            "beit_base_patch16_384",
            "beit_large_patch16_224",
            "beit_large_patch16_384",
            "beit_large_patch16_512",
            "beitv2_base_patch16_224",
            "beitv2_large_patch16_224",
        )
    },
    build=build,
    layer_names={
        "timm": _timm,
        "transformers": with_prefix("beit", _transformers, classifier="classifier"),
        "transformers-base": _transformers,
        "transformers-5": with_prefix(
            "beit", functools.partial(_transformers, files=False), classifier="classifier"
        ),
    },
)
