"""AIMv2: vision transformers with root-mean-square normalization and without biases.

Source: Fini et al. 2024, arXiv:2411.14402. The names of blocks and networks are timm's. The networks map
images `(batch, height, width, channels)` to the mean of the patches `(batch, width)`. There are encoders for
fixed image sizes only: those for native aspects compute their positions from sines.
"""

import functools

from transfer_jax.models.clip import MEAN, STD, TEXTS
from transfer_jax.models.eva import timm_block
from transfer_jax.models.family import Family, LibraryLayer, Variant
from transfer_jax.models.preprocessing import Preprocessing
from transfer_jax.models.transformer import Shape, build, layer_of, timm
from transfer_jax.nn.activations import silu
from transfer_jax.nn.layers import RmsNorm


def _timm(shape: Shape, path: tuple[str, ...]) -> str | LibraryLayer | None:
    return timm_block(path, gates=True) or timm(shape, path)


_EMBED = {
    "patch": LibraryLayer(("embeddings.patch_embed",)),
    "norm_patches": LibraryLayer(("embeddings.rms_norm",)),
    "pos_embed": LibraryLayer(("embeddings.position_embedding.weight",), leading=-1),
}
_LAYERS = {
    "norm1": "rms_norm1",
    "attn/qkv": tuple(f"attention.{name}_proj" for name in "qkv"),
    "attn/proj": "attention.out_proj",
    "norm2": "rms_norm2",
    "fc1": ("ffn.gate_proj", "ffn.up_proj"),
    "fc2": "ffn.down_proj",
}


def _transformers(shape: Shape, path: tuple[str, ...]) -> LibraryLayer | None:
    """Returns the layer names of Hugging Face, for the encoders without a pooling of their own."""
    match path:
        case ("backbone", "embed", name):
            return _EMBED[name]
        case ("backbone", "norm", "norm"):
            return LibraryLayer(("rms_norm",))
        case ("backbone", block, *layers):
            return layer_of(_LAYERS, layers, block.replace("blocks", "encoder.layers"))
    return None


_SHAPE = functools.partial(
    Shape,
    depth=24,
    patch=14,
    tokens=0,
    positions=0,
    pool="mean",
    bias="",
    linear_bias=False,
    norm=RmsNorm,
    norm_patches=True,
    gated=True,
    activation=silu,
    epsilon=1e-5,
    kind="",
)
_SIZES = {
    "large": _SHAPE(1024, heads=8, hidden=2816),
    "huge": _SHAPE(1536, heads=12, hidden=4096),
    "1b": _SHAPE(2048, heads=16, hidden=5632),
    "3b": _SHAPE(3072, heads=24, hidden=8192),
}

FAMILY = Family(
    name="aimv2",
    variants={
        f"aimv2_{size}_patch14_{pixels}": Variant(
            shape=shape,
            preprocessing=Preprocessing(image_size=pixels, crop_fraction=1.0, mean=MEAN, std=STD),
        )
        for pixels in (224, 336, 448)
        for size, shape in _SIZES.items()
    },
    build=build,
    layer_names={"timm": _timm, "transformers-base": _transformers},
    ignored_keys=TEXTS,
)
