"""The image encoders of SigLIP 2 for images of any aspect ratio (NaFlex).

Source: Tschannen et al. 2025, arXiv:2502.14786; Dehghani et al. 2023, arXiv:2307.06304 (NaViT). The names of
blocks and networks are timm's. Height and width of the images are multiples of 16 pixels, and may differ. The
positions are those of a grid of 16x16 patches, which each call resamples to the grid of its images. All
images of a batch have the same size, so no token is padding.
"""

import jax
from flax import nnx

from transfer_jax.models.backbone import PRE_LOGITS, Backbone
from transfer_jax.models.clip import TEXTS
from transfer_jax.models.family import HALF, Family, LibraryLayer, Setting, Variant, with_prefix
from transfer_jax.models.preprocessing import Preprocessing
from transfer_jax.models.siglip import SIZES, AttentionPool, timm_pool, transformers
from transfer_jax.models.transformer import Shape, blocks_before_pooling
from transfer_jax.nn.activations import gelu_tanh
from transfer_jax.nn.initializers import normal
from transfer_jax.nn.layers import Identity, Linear

_GRID = 16


class NaFlexEmbed(nnx.Module):
    """The linear patch embedding with position embeddings that are resampled to the grid of the images.

    It maps `(batch, height, width, channels)` to `(batch, tokens, width)`.

    Args:
        shape: Sizes of the network.
        setting: Options of building it.
    """

    def __init__(self, shape: Shape, setting: Setting) -> None:
        rngs = setting.rngs
        self.proj = Linear(shape.patch**2 * setting.channels, shape.width, rngs=rngs)
        self.pos_embed = nnx.Param(normal(0.02)(rngs.params(), (1, _GRID**2, shape.width)))
        self.patch = shape.patch

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        batch, height, width, channels = x.shape
        rows, columns = height // self.patch, width // self.patch
        x = x.reshape(batch, rows, self.patch, columns, self.patch, channels).swapaxes(2, 3)
        x = self.proj(x.reshape(batch, rows * columns, -1))
        return x + self._positions(rows, columns).astype(x.dtype)

    def _positions(self, rows: int, columns: int) -> jax.Array:
        """Returns the position embeddings of a grid of patches, `(1, rows x columns, width)`."""
        table = self.pos_embed[...]
        if (rows, columns) == (_GRID, _GRID):
            return table
        grid = table.reshape(_GRID, _GRID, -1)
        size = (rows, columns, grid.shape[-1])
        resized = jax.image.resize(grid, size, "linear", precision=jax.lax.Precision.HIGHEST)
        return resized.reshape(1, rows * columns, -1)


def _build(shape: Shape, setting: Setting) -> Backbone:
    """Builds the blocks `embed`, `blocks.0` …, `norm`, `attn_pool`, `pre_logits`.

    The backbone maps images `(batch, height, width, channels)` to features `(batch, shape.width)`.

    Raises:
        ValueError: If the image size is not a multiple of the patch size.
    """
    blocks = blocks_before_pooling(shape, setting, NaFlexEmbed(shape, setting))
    blocks["attn_pool"] = AttentionPool(shape, setting.rngs)
    return Backbone({**blocks, PRE_LOGITS: Identity()}, shape.width)


def _timm(shape: Shape, path: tuple[str, ...]) -> str | LibraryLayer | None:
    match path:
        case ("backbone", "embed", "proj"):
            return "embeds.proj"
        case ("backbone", "embed", "pos_embed"):
            return LibraryLayer(("embeds.pos_embed",), grid=_GRID)
    return timm_pool(shape, path)


def _transformers(shape: Shape, path: tuple[str, ...]) -> LibraryLayer | None:
    """Returns the layer names of Hugging Face, whose classifier reads the mean of the patches."""
    if path == ("backbone", "embed", "proj"):
        return LibraryLayer(("embeddings.patch_embedding",))
    return transformers(shape, path)


FAMILY = Family(
    name="naflex",
    variants={
        f"naflexvit_{size}_patch16_siglip": Variant(
            shape=SIZES[size](tokens=0, positions=0, activation=gelu_tanh, kind=""),
            preprocessing=Preprocessing(image_size=384, crop_fraction=1.0, mean=HALF, std=HALF),
        )
        for size in ("base", "so400m")
    },
    build=_build,
    layer_names={
        "timm": _timm,
        "transformers": with_prefix("vision_model", _transformers),
        "transformers-base": _transformers,
    },
    ignored_keys=(*TEXTS, r"^classifier\."),
)
