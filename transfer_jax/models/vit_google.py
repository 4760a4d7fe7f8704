"""Layer names of Google's `.npz` files of vision transformers, from vision_transformer and big_vision.

The attention in these files has an axis for its heads. In big_vision the class token has no position.
"""

import functools
from typing import Any

from transfer_jax.models.family import LibraryLayer

_EMBED = {"patch": "embedding", "cls_token": "cls"}


def attention(module: str, layer: str, heads: int) -> LibraryLayer:
    """Returns the layer `qkv` or `proj` of an attention in Google's files.

    Args:
        module: Name of the attention's module.
        layer: `qkv` or `proj`.
        heads: Number of attention heads.
    """
    if layer == "qkv":
        return LibraryLayer(tuple(f"{module}/{name}" for name in ("query", "key", "value")), heads=heads)
    return LibraryLayer((f"{module}/out",), heads=heads, of_inputs=True)


def _google(
    shape: Any, path: tuple[str, ...], *, mixing: str, norm2: str, perceptron: str, positions: str
) -> LibraryLayer | None:
    """Returns a layer in Google's files.

    Args:
        shape: Sizes of the network; `shape.heads` is the number of attention heads.
        path: Path of the layer.
        mixing: Name of the attention in a block.
        norm2: Name of the normalization before the perceptron.
        perceptron: Name of the perceptron.
        positions: Name of the position embeddings.
    """
    match path:
        case ("head", "classifier"):
            return LibraryLayer(("head",))
        case ("backbone", "embed", "pos_embed"):
            return LibraryLayer((positions,))
        case ("backbone", "embed", name) if name in _EMBED:
            return LibraryLayer((_EMBED[name],))
        case ("backbone", "norm", "norm"):
            return LibraryLayer(("Transformer/encoder_norm",))
        case ("backbone", block, *layers) if block.startswith("blocks."):
            inside = f"Transformer/encoderblock_{block.removeprefix('blocks.')}"
            known = {"norm1": "LayerNorm_0", "norm2": norm2, "fc1": f"{perceptron}/Dense_0"}
            known["fc2"] = f"{perceptron}/Dense_1"
            match layers:
                case ["attn", layer]:
                    return attention(f"{inside}/{mixing}", layer, shape.heads)
                case [name] if name in known:
                    return LibraryLayer((f"{inside}/{known[name]}",))
    return None


vision_transformer = functools.partial(
    _google,
    mixing="MultiHeadDotProductAttention_1",
    norm2="LayerNorm_2",
    perceptron="MlpBlock_3",
    positions="Transformer/posembed_input/pos_embedding",
)
big_vision = functools.partial(
    _google,
    mixing="MultiHeadDotProductAttention_0",
    norm2="LayerNorm_1",
    perceptron="MlpBlock_0",
    positions="pos_embedding",
)
