"""The image encoders of CLIP.

Source: Radford et al. 2021, arXiv:2103.00020. The names of blocks and networks are timm's.
`*_clip_quickgelu_*` have the activation of OpenAI's weights, `*_clip_*` that of most other weights.

The encoders map images `(batch, height, width, channels)` to features `(batch, width)`. These are the
features before the projection into the joint space of images and texts, which is not supported. Of a file
with both encoders, only the image encoder is loaded.
"""

import functools

from transfer_jax.models.family import Family, LibraryLayer, Variant, with_prefix
from transfer_jax.models.preprocessing import Preprocessing
from transfer_jax.models.transformer import Shape, build, layer_of, timm
from transfer_jax.models.vit import SIZES
from transfer_jax.nn.activations import gelu, quick_gelu

MEAN = (0.48145466 * 255, 0.4578275 * 255, 0.40821073 * 255)
STD = (0.26862954 * 255, 0.26130258 * 255, 0.27577711 * 255)
"""The mean and the standard deviation of CLIP's images, per RGB channel on the 0..255 scale."""

_EMBED = {
    "patch": LibraryLayer(("embeddings.patch_embedding",)),
    "cls_token": LibraryLayer(("embeddings.class_embedding",), leading=-2),
    "pos_embed": LibraryLayer(("embeddings.position_embedding.weight",), leading=-1),
    "norm": LibraryLayer(("pre_layrnorm",)),
}
TEXTS = (r"^text_", r"^visual_projection\.", r"^logit_")
"""Regular expressions of the keys outside the image encoder, in a file with both encoders."""
_LAYERS = {
    "norm1": "layer_norm1",
    "attn/qkv": tuple(f"self_attn.{name}_proj" for name in "qkv"),
    "attn/proj": "self_attn.out_proj",
    "norm2": "layer_norm2",
    "fc1": "mlp.fc1",
    "fc2": "mlp.fc2",
}


def transformers(shape: Shape, path: tuple[str, ...]) -> LibraryLayer | None:
    """Returns the layer names of Hugging Face, whose classifiers read other features."""
    match path:
        case ("backbone", "embed", name):
            return _EMBED[name]
        case ("backbone", "norm", "norm"):
            return LibraryLayer(("post_layernorm",))
        case ("backbone", block, *layers):
            return layer_of(_LAYERS, layers, block.replace("blocks", "encoder.layers"))
    return None


def _variants(size: str, patch: int, *pixels: int, quick: bool = False) -> dict[str, Variant]:
    shape = functools.partial(SIZES[size], patch=patch, pre_norm=True, epsilon=1e-5)
    return {
        f"vit_{size}_patch{patch}_clip{'_quickgelu' if quick else ''}_{side}": Variant(
            shape=shape(activation=quick_gelu if quick else gelu),
            preprocessing=Preprocessing(image_size=side, crop_fraction=1.0, mean=MEAN, std=STD),
        )
        for side in pixels
    }


FAMILY = Family(
    name="clip",
    variants={
        **_variants("base", 32, 224, 256, 384, 448),
        **_variants("base", 32, 224, quick=True),
        **_variants("base", 16, 224, 384),
        **_variants("base", 16, 224, quick=True),
        **_variants("large", 14, 224, 336),
        **_variants("large", 14, 224, 336, quick=True),
        **_variants("huge", 14, 224, 378),
        **_variants("huge", 14, 224, 378, quick=True),
        **_variants("giant", 14, 224),
        **_variants("gigantic", 14, 224, 378),
        **_variants("gigantic", 14, 224, quick=True),
    },
    build=build,
    layer_names={
        "timm": timm,
        "transformers": with_prefix("vision_model", transformers),
        "transformers-base": transformers,
    },
    ignored_keys=TEXTS,
)
