"""EfficientNet in timm, torchvision, Keras and transformers."""

from typing import Any

from originals.keras_api import KerasOriginal, application
from originals.original import LABELS, Original, in_transformers, timm_network, torchvision_network
from transfer_jax.models import efficientnet

_VARIANTS = efficientnet.FAMILY.variants
_TORCHVISION = (
    *(f"efficientnet_b{scale}" for scale in range(5)),
    *(f"tv_efficientnet_b{scale}" for scale in (5, 6, 7)),
    *(f"efficientnet_v2_{scale}" for scale in "sml"),
)
_TIMM = (
    *(f"efficientnet_b{scale}" for scale in range(8)),
    *(f"tf_efficientnet_b{scale}" for scale in range(8)),
    *(name for name in _VARIANTS if name.startswith("tf_efficientnetv2_")),
)


def _timm(name: str, block: str) -> str:
    return {"stem": "bn1", "top": "bn2", "pre_logits": "global_pool"}.get(block, block)


def _torchvision_network(name: str, size: int) -> Any:
    return torchvision_network(name.removeprefix("tv_"), size)


def _torchvision(name: str, block: str) -> str:
    stages = len(_VARIANTS[name].shape.stages)
    known = {"stem": "features.0", "top": f"features.{stages + 1}", "pre_logits": "avgpool"}
    if block in known:
        return known[block]
    _, stage, repeat = block.split(".")
    return f"features.{int(stage) + 1}.{repeat}"


def _keras_network(name: str, size: int) -> Any:
    scale = name.rpartition("_")[2].upper()
    if "v2" in name:
        return application(f"EfficientNetV2{scale}", size, include_preprocessing=False)
    return application(f"EfficientNet{scale}", size)


def _keras(name: str, block: str) -> str:
    known = {"stem": "stem_activation", "top": "top_activation", "pre_logits": "avg_pool"}
    if block in known:
        return known[block]
    shape = _VARIANTS[name].shape
    number, repeat = map(int, block.split(".")[1:])
    stage, before = shape.stages[number], shape.stages[number - 1].channels if number else shape.stem
    prefix = f"block{number + 1}{chr(97 + repeat)}"
    if repeat or (stage.strides == 1 and before == stage.channels):
        return f"{prefix}_add"
    return f"{prefix}_{'project_activation' if stage.layers() == ('fused',) else 'project_bn'}"


def _transformers_network(name: str, size: int, kind: str) -> Any:
    """A network whose config lists the blocks that get images of odd size, as the published ones do."""
    import transformers

    variant = _VARIANTS[name]
    scale = name.rpartition("_")[2]
    width, depth, *_ = efficientnet.SCALES[scale]
    side, odd = -(-size // 2), []
    for number, strides in enumerate(
        strides for stage in variant.shape.stages for strides in (stage.strides, *(1,) * (stage.count - 1))
    ):
        odd += [number] if side % 2 else []
        side = -(-side // strides)
    config = transformers.EfficientNetConfig(
        image_size=size,
        width_coefficient=width,
        depth_coefficient=depth,
        depthwise_padding=odd,
        hidden_dim=variant.shape.top,
        id2label=LABELS,
    )
    return getattr(transformers, f"EfficientNet{kind}")(config)


def _base(name: str, block: str) -> str:
    known = {"stem": "embeddings", "top": "encoder.top_activation", "pre_logits": ""}
    if block in known:
        return known[block]
    number, repeat = map(int, block.split(".")[1:])
    return f"encoder.blocks.{sum(stage.count for stage in _VARIANTS[name].shape.stages[:number]) + repeat}"


_TF = [name for name in _VARIANTS if name.startswith("tf_efficientnet_")]
ORIGINALS = {
    **{
        (name, "keras"): KerasOriginal(_keras_network, _keras) for name in _VARIANTS if name.startswith("tf_")
    },
    **{(name, "timm"): Original(timm_network, _timm) for name in _TIMM},
    **{(name, "torchvision"): Original(_torchvision_network, _torchvision) for name in _TORCHVISION},
    # its stem knows no images of odd size
    **in_transformers("efficientnet", _transformers_network, _base, _TF, odd=186),
}
