"""Vision transformers in timm, torchvision and transformers."""

from typing import Any

from originals.original import CLASSES, LABELS, Original, timm_network_of_size, tower
from transfer_jax.models import vit

_VARIANTS = vit.FAMILY.variants
_TORCHVISION = {
    "vit_base_patch16_224": "vit_b_16",
    "vit_base_patch32_224": "vit_b_32",
    "vit_large_patch16_224": "vit_l_16",
    "vit_large_patch32_224": "vit_l_32",
}


def timm_module(name: str, block: str) -> str:
    """Returns timm's module with the same output as a block of a vision transformer."""
    if block == "pre_logits" and "distilled" in name:
        return ""
    return {"embed": "norm_pre", "pre_logits": "fc_norm"}.get(block, block)


def _torchvision_network(name: str, size: int) -> Any:
    import torchvision

    original = _TORCHVISION[name]
    return torchvision.models.get_model(original, weights=None, num_classes=CLASSES, image_size=size)


def _torchvision(name: str, block: str) -> str:
    known = {"embed": "encoder.dropout", "norm": "encoder.ln", "pre_logits": ""}
    return known.get(block, f"encoder.layers.encoder_layer_{block.removeprefix('blocks.')}")


_TRANSFORMERS = {
    "vit": "ViT",
    "deit": "DeiT",
    "dinov2": "Dinov2",
    "dinov2_with_registers": "Dinov2WithRegisters",
}


def _transformers_network(name: str, size: int, kind: str = "ForImageClassification") -> Any:
    import transformers

    shape = _VARIANTS[name].shape
    model = _TRANSFORMERS[shape.kind]
    config = getattr(transformers, f"{model}Config")(
        **tower(shape, size),
        id2label=LABELS,
        **({"num_register_tokens": shape.registers} if shape.registers else {}),
        **({"use_swiglu_ffn": True} if shape.gated else {}),
    )
    return getattr(transformers, f"{model}{kind}")(config)


def _base_network(name: str, size: int) -> Any:
    return _transformers_network(name, size, "Model")


def _base(name: str, block: str) -> str:
    layers = "encoder.layer" if _VARIANTS[name].shape.kind.startswith("dino") else "layers"
    known = {"embed": "embeddings", "norm": "layernorm", "pre_logits": ""}
    return known.get(block, f"{layers}.{block.removeprefix('blocks.')}")


def _transformers(name: str, block: str) -> str:
    module = _base(name, block)
    return f"{_VARIANTS[name].shape.kind}.{module}" if module else ""


def _mae_network(name: str, size: int) -> Any:
    """A network that gets all patches in order."""
    import torch
    import transformers

    shape = _VARIANTS[name].shape
    config = transformers.ViTMAEConfig(**tower(shape, size), mask_ratio=0.0)
    network = transformers.ViTMAEModel(config)
    order = torch.arange((size // shape.patch) ** 2).float()
    noise = {"noise": torch.stack([order, order])}
    network.register_forward_pre_hook(lambda _, inputs, __: (inputs, noise), with_kwargs=True)
    return network


def _ignored(name: str) -> str:
    """The classifier of DINOv2, which also reads the mean of the patches."""
    return "^classifier" if _VARIANTS[name].shape.kind.startswith("dino") else ""


_MAE = [name for name in _VARIANTS if name.endswith(".mae")]
ORIGINALS = {
    **{
        (name, "timm"): Original(
            timm_network_of_size,
            timm_module,
            logits="head" if "distilled" in name else "",
            ignore="^head_dist" if "distilled" in name else "",
        )
        for name in _VARIANTS
        if not name.startswith(("dinov2", "vit_nano"))
    },
    **{(name, "torchvision"): Original(_torchvision_network, _torchvision) for name in _TORCHVISION},
    **{
        (name, library): Original(_transformers_network, _transformers, ignore=_ignored(name))
        for name, variant in _VARIANTS.items()
        if variant.shape.kind
        for library in ("transformers", "transformers-5")
    },
    **{
        (name, "transformers-base"): Original(_base_network, _base, ignore="^pooler")
        for name, variant in _VARIANTS.items()
        if variant.shape.kind
    },
    **{(name, "transformers-base"): Original(_mae_network, _base) for name in _MAE},
}
