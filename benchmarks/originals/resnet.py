"""ResNet and its variants in torchvision, timm, transformers and Keras."""

from typing import Any

from originals.keras_api import KerasOriginal, application
from originals.original import LABELS, Original, in_transformers, timm_network, torchvision_network
from transfer_jax.models import resnet

_VARIANTS = resnet.FAMILY.variants


def _torchvision(name: str, block: str) -> str:
    return {"stem": "maxpool", "pre_logits": "avgpool"}.get(block, block)


def _timm(name: str, block: str) -> str:
    return {"stem": "maxpool", "pre_logits": "global_pool"}.get(block, block)


def _transformers_network(name: str, size: int, kind: str) -> Any:
    import transformers

    shape = _VARIANTS[name].shape
    widths = [64 * 2**stage * (4 if shape.bottleneck else 1) for stage in range(4)]
    config = transformers.ResNetConfig(
        depths=list(shape.depths),
        hidden_sizes=widths,
        layer_type="bottleneck" if shape.bottleneck else "basic",
        id2label=LABELS,
    )
    return getattr(transformers, f"ResNet{kind}")(config)


def _base(name: str, block: str) -> str:
    if block in ("stem", "pre_logits"):
        return {"stem": "embedder", "pre_logits": "pooler"}[block]
    stage, repeat = block.removeprefix("layer").split(".")
    return f"encoder.stages.{int(stage) - 1}.layers.{repeat}"


def _keras_network(name: str, size: int) -> Any:
    return application(name.removeprefix("keras_").replace("resnet", "ResNet"), size)


def _keras(name: str, block: str) -> str:
    if block in ("stem", "pre_logits"):
        return {"stem": "pool1_pool", "pre_logits": "avg_pool"}[block]
    stage, repeat = block.removeprefix("layer").split(".")
    return f"conv{int(stage) + 1}_block{int(repeat) + 1}_out"


_TORCHVISION = (
    *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "wide_resnet50_2", "wide_resnet101_2"),
    *("resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d"),
)
_KERAS = [name for name, variant in _VARIANTS.items() if variant.shape.keras]
ORIGINALS = {
    **{(name, "keras"): KerasOriginal(_keras_network, _keras) for name in _KERAS},
    **{(name, "torchvision"): Original(torchvision_network, _torchvision) for name in _TORCHVISION},
    **{
        # timm's antialiased networks take multiples of 32 only.
        (name, "timm"): Original(timm_network, _timm, odd=160 if variant.shape.antialias else 0)
        for name, variant in _VARIANTS.items()
        if name not in _KERAS
    },
    **in_transformers(
        "resnet", _transformers_network, _base, ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
    ),
}
