"""The image encoders of SigLIP and of SigLIP 2 for fixed image sizes, which pool by attention.

Sources: Zhai et al. 2023, arXiv:2303.15343; Tschannen et al. 2025, arXiv:2502.14786 (SigLIP 2); Zhai et al.
2022, arXiv:2106.04560 (the pooling). The names of blocks are timm's. `siglip_*` have the activation of the
published weights, as in transformers. `vit_*_siglip_*` have the activation of timm's network of that name: it
is exact in the networks of the first paper, which differs by less than a thousandth. `vit_*_siglip_gap_*`
leave out the pooling and map images to the mean of the patches.
"""

import functools

import jax
import jax.numpy as jnp
from flax import nnx

from transfer_jax.models import clip, vit
from transfer_jax.models.backbone import PRE_LOGITS, Backbone
from transfer_jax.models.family import HALF, Family, LibraryLayer, Setting, Variant, with_prefix
from transfer_jax.models.preprocessing import Preprocessing
from transfer_jax.models.transformer import Shape, blocks_before_pooling, build, timm
from transfer_jax.models.vit_google import attention, big_vision
from transfer_jax.nn.activations import gelu, gelu_tanh
from transfer_jax.nn.attention import attend
from transfer_jax.nn.initializers import normal
from transfer_jax.nn.layers import Identity, LayerNorm, Linear


class AttentionPool(nnx.Module):
    """Pooling by attention of a learned token to all others: `(batch, tokens, width)` to `(batch, width)`.

    Args:
        shape: Sizes of the network.
        rngs: Source of the initial parameters.
    """

    def __init__(self, shape: Shape, rngs: nnx.Rngs) -> None:
        width, hidden = shape.width, shape.hidden or 4 * shape.width
        draw = normal(width**-0.5)
        self.latent = nnx.Param(draw(rngs.params(), (1, 1, width)))
        self.qkv = Linear(width, 3 * width, rngs=rngs)
        self.proj = Linear(width, width, rngs=rngs)
        self.norm = LayerNorm(width, epsilon=shape.epsilon, rngs=rngs)
        self.fc1 = Linear(width, hidden, rngs=rngs)
        self.fc2 = Linear(hidden, width, rngs=rngs)
        self.shape = shape

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        batch, _, width = x.shape
        x = self.proj(attend(*self.inputs(x)).reshape(batch, width))
        return x + self.fc2(self.shape.activation(self.fc1(self.norm(x))))

    def inputs(self, x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Returns the query, the keys and the values, `(batch, 1 or tokens, heads, width / heads)`."""
        batch, _, width = x.shape
        latent = jnp.broadcast_to(self.latent[...].astype(x.dtype), (batch, 1, width))
        query, key, value = (
            self._input(index, array).reshape(batch, -1, self.shape.heads, width // self.shape.heads)
            for index, array in enumerate((latent, x, x))
        )
        return query, key, value

    def _input(self, index: int, x: jax.Array) -> jax.Array:
        """Returns the query, the keys or the values: the outputs of a third of the joint layer."""
        outputs = slice(index * self.shape.width, (index + 1) * self.shape.width)
        assert self.qkv.bias is not None
        kernel, bias = self.qkv.kernel[:, outputs], self.qkv.bias[outputs]
        return x @ kernel.astype(x.dtype) + bias.astype(x.dtype)


def _build(shape: Shape, setting: Setting) -> Backbone:
    """Builds the blocks `embed`, `blocks.0` …, `norm`, `attn_pool`, `pre_logits`.

    Networks that classify the mean of the patches have no block `attn_pool`. The backbone maps images
    `(batch, height, width, channels)` to features `(batch, shape.width)`.

    Raises:
        ValueError: If the image size is not a multiple of the patch size.
    """
    if shape.pool == "mean":
        return build(shape, setting)
    blocks = blocks_before_pooling(shape, setting)
    blocks["attn_pool"] = AttentionPool(shape, setting.rngs)
    return Backbone({**blocks, PRE_LOGITS: Identity()}, shape.width)


def timm_pool(shape: Shape, path: tuple[str, ...]) -> str | LibraryLayer | None:
    """Returns the layer names of timm for a network that pools by attention."""
    if path == ("backbone", "attn_pool", "qkv"):
        return LibraryLayer(("attn_pool.q", "attn_pool.kv"), sizes=(1, 2))
    return timm(shape, path)


_POOL = {
    "latent": "probe",
    "qkv": "attention.in_proj_",
    "proj": "attention.out_proj",
    "norm": "layernorm",
    "fc1": "mlp.fc1",
    "fc2": "mlp.fc2",
}


def transformers(shape: Shape, path: tuple[str, ...]) -> LibraryLayer | None:
    """Returns the layer names of Hugging Face: those of CLIP, and the pooling.

    Its classifier reads the mean of the patches, and has no name here.
    """
    match path:
        case ("backbone", "attn_pool", name):
            return LibraryLayer((f"head.{_POOL[name]}",))
    return clip.transformers(shape, path)


def _big_vision(shape: Shape, path: tuple[str, ...]) -> LibraryLayer | None:
    """Returns the layer names of big_vision, inside the image encoder `img` of a file."""
    match path:
        case ("backbone", "attn_pool", "latent"):
            return LibraryLayer(("MAPHead_0/probe",))
        case ("backbone", "attn_pool", "qkv" | "proj" as layer):
            return attention("MAPHead_0/MultiHeadDotProductAttention_0", layer, shape.heads)
        case ("backbone", "attn_pool", "norm"):
            return LibraryLayer(("MAPHead_0/LayerNorm_0",))
        case ("backbone", "attn_pool", layer):
            return LibraryLayer((f"MAPHead_0/MlpBlock_0/Dense_{int(layer[-1]) - 1}",))
    return big_vision(shape, path)


SIZES = {
    **vit.SIZES,
    "so400m": functools.partial(Shape, 1152, 27, 16, hidden=4304),
    "giantopt": functools.partial(Shape, 1536, 40, 16),
}


def _variants(
    size: str, patch: int, *pixels: int, exact: bool = True, gap: tuple[int, ...] = ()
) -> dict[str, Variant]:
    """Returns the networks of a size.

    Args:
        size: Name of the size.
        patch: Side of a patch, in pixels.
        pixels: Image sizes.
        exact: Whether timm's networks have the exact activation.
        gap: More image sizes that only the networks without the pooling have.
    """
    shape = functools.partial(SIZES[size], patch=patch, tokens=0, positions=0)
    activation = gelu if exact else gelu_tanh
    shapes = {}
    for side in pixels:
        ragged = bool(side % patch)
        shapes[f"siglip_{size}_patch{patch}_{side}"] = shape(activation=gelu_tanh, ragged=ragged)
        shapes[f"vit_{size}_patch{patch}_siglip_{side}"] = shape(activation=activation, ragged=ragged)
    for side in (*pixels, *gap):
        shapes[f"vit_{size}_patch{patch}_siglip_gap_{side}"] = shape(
            activation=activation, ragged=bool(side % patch), pool="mean"
        )
    return {name: _variant(shape, int(name.rpartition("_")[2])) for name, shape in shapes.items()}


def _variant(shape: Shape, size: int) -> Variant:
    preprocessing = Preprocessing(image_size=size, crop_fraction=1.0, mean=HALF, std=HALF)
    return Variant(shape=shape, preprocessing=preprocessing)


FAMILY = Family(
    name="siglip",
    variants={
        **_variants("base", 16, 224, 256, 384, 512),
        **_variants("base", 32, 256, exact=False),
        **_variants("large", 16, 256, 384),
        **_variants("large", 16, 512, exact=False),
        **_variants("so400m", 14, 224, 378, 384, gap=(448, 896)),
        **_variants("so400m", 16, 256, 384, 512, exact=False),
        **_variants("giantopt", 16, 256, 384, exact=False),
    },
    build=_build,
    layer_names={
        "timm": timm_pool,
        "transformers": with_prefix("vision_model", transformers),
        "transformers-base": transformers,
        "big_vision": _big_vision,
    },
    ignored_keys=(*clip.TEXTS, r"^classifier\."),
)
