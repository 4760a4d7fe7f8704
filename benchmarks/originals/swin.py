"""Swin transformers in torchvision, timm and transformers."""

from typing import Any

from originals.original import LABELS, Original, in_transformers, timm_network_of_size, torchvision_network
from transfer_jax.models import swin

_VARIANTS = swin.FAMILY.variants
_TORCHVISION = {
    "swin_tiny_patch4_window7_224": "swin_t",
    "swin_small_patch4_window7_224": "swin_s",
    "swin_base_patch4_window7_224": "swin_b",
}


def timm(name: str, block: str) -> str:
    """Returns the module of a block in timm."""
    return "head.global_pool" if block == "pre_logits" else block


def _torchvision_network(name: str, size: int) -> Any:
    return torchvision_network(_TORCHVISION[name], size)


def torchvision(name: str, block: str) -> str:
    """Returns the module of a block in torchvision."""
    if block in ("patch_embed", "norm", "pre_logits"):
        return {"patch_embed": "features.0", "norm": "norm", "pre_logits": "flatten"}[block]
    _, stage, *rest = block.split(".")
    return f"features.{2 * int(stage)}" if len(rest) == 1 else f"features.{2 * int(stage) + 1}.{rest[1]}"


def _transformers_network(name: str, size: int, kind: str) -> Any:
    import transformers

    shape = _VARIANTS[name].shape
    config = transformers.SwinConfig(
        image_size=size,
        embed_dim=shape.width,
        depths=list(shape.depths),
        num_heads=list(shape.heads),
        window_size=shape.window,
        id2label=LABELS,
    )
    return getattr(transformers, f"Swin{kind}")(config)


def base(name: str, block: str) -> str:
    """Returns the module of a block in a network of transformers without a classifier."""
    known = {"patch_embed": "embeddings", "norm": "layernorm", "pre_logits": ""}
    if block.endswith("downsample"):
        return f"encoder.layers.{int(block.split('.')[1]) - 1}.downsample"
    return known.get(block, f"encoder.{block}")


def _transformers(name: str) -> dict[tuple[str, str], Original]:
    """A network that is also read by its state dict."""
    odd = 36 * _VARIANTS[name].shape.window
    found = in_transformers("swin", _transformers_network, base, [name], odd=odd)
    return {**found, (name, "transformers-5"): found[name, "transformers"]}


# timm is compared where its windows need no padding, transformers where no image is smaller than a window.
ORIGINALS = {
    **{
        (name, "timm"): Original(
            timm_network_of_size, timm, odd=2 * variant.preprocessing.image_size, channels_last=True
        )
        for name, variant in _VARIANTS.items()
    },
    **{
        (name, "torchvision"): Original(_torchvision_network, torchvision, channels_last=True)
        for name in _TORCHVISION
    },
    **{case: original for name in _VARIANTS for case, original in _transformers(name).items()},
}
