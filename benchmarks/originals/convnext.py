"""ConvNeXt in timm, torchvision, transformers and Keras."""

from typing import Any

from originals.keras_api import KerasOriginal, application
from originals.original import LABELS, Original, in_transformers, timm_network, torchvision_network
from transfer_jax.models import convnext


def _timm(name: str, block: str) -> str:
    known = {"norm": "head.norm", "hidden": "head.pre_logits", "pre_logits": "head.drop"}
    return known.get(block, block)


def _torchvision(name: str, block: str) -> str:
    if block in ("stem", "norm", "pre_logits"):
        return {"stem": "features.0", "norm": "classifier.0", "pre_logits": "classifier.1"}[block]
    _, stage, *rest = block.split(".")
    if rest == ["downsample"]:
        return f"features.{2 * int(stage)}"
    return f"features.{2 * int(stage) + 1}.{rest[1]}"


def _transformers_network(name: str, size: int, kind: str) -> Any:
    import transformers

    shape = convnext.FAMILY.variants[name].shape
    version = "V2" if shape.v2 else ""
    config = getattr(transformers, f"ConvNext{version}Config")(
        depths=list(shape.depths),
        hidden_sizes=list(shape.widths),
        id2label=LABELS,
    )
    return getattr(transformers, f"ConvNext{version}{kind}")(config)


def _base(name: str, block: str) -> str:
    if block in ("stem", "norm", "pre_logits"):
        return {"stem": "embeddings", "norm": "layernorm", "pre_logits": ""}[block]
    _, stage, *rest = block.split(".")
    module = f"encoder.stages.{stage}"
    return f"{module}.downsampling_layer.1" if rest == ["downsample"] else f"{module}.layers.{rest[1]}"


def _dinov3_network(name: str, size: int) -> Any:
    import transformers

    shape = convnext.FAMILY.variants[name].shape
    config = transformers.DINOv3ConvNextConfig(depths=list(shape.depths), hidden_sizes=list(shape.widths))
    return transformers.DINOv3ConvNextModel(config)


def _dinov3(name: str, block: str) -> str:
    """A network whose last normalization also has the features before the pooling."""
    if block in ("stem", "norm", "pre_logits"):
        return "model.stages.0.downsample_layers.1" if block == "stem" else ""
    _, stage, *rest = block.split(".")
    module = f"model.stages.{stage}"
    return f"{module}.downsample_layers.1" if rest == ["downsample"] else f"{module}.layers.{rest[1]}"


def _keras_network(name: str, size: int) -> Any:
    kind = name.removeprefix("convnext_").capitalize().replace("Xl", "XL")
    return application(f"ConvNeXt{kind}", size, include_preprocessing=False)


def _keras(name: str, block: str) -> str:
    """A network whose sums at the end of blocks have no names; they are the inputs of the next modules."""
    if block in ("stem", "norm", "pre_logits"):
        return {"stem": f"{name}_stem", "norm": f"{name}_head_layernorm", "pre_logits": ""}[block]
    _, stage, *rest = block.split(".")
    if rest == ["downsample"]:
        return f"{name}_downsampling_block_{int(stage) - 1}"
    depth, repeat = convnext.FAMILY.variants[name].shape.depths[int(stage)], int(rest[1]) + 1
    if repeat < depth:
        return f"{name}_stage_{stage}_block_{repeat}_depthwise_conv<"
    return f"{name}_head_gap<" if stage == "3" else f"{name}_downsampling_block_{stage}<"


_SHAPES = {name: variant.shape for name, variant in convnext.FAMILY.variants.items()}
_KERAS = [name for name, shape in _SHAPES.items() if shape.keras]
_PLAIN = [  # transformers has no other stem, normalization, epsilon and head
    name
    for name, shape in _SHAPES.items()
    if shape.stem == "patches" and not shape.simple and not shape.hidden and shape.epsilon == 1e-6
]
ORIGINALS = {
    **{(name, "keras"): KerasOriginal(_keras_network, _keras) for name in _KERAS},
    **{(name, "timm"): Original(timm_network, _timm) for name in convnext.FAMILY.variants},
    **{
        (name, "torchvision"): Original(torchvision_network, _torchvision)
        for name in ("convnext_tiny", "convnext_small", "convnext_base", "convnext_large")
    },
    **{
        (name, "transformers-dinov3"): Original(_dinov3_network, _dinov3)
        for name in ("convnext_tiny", "convnext_small", "convnext_base", "convnext_large")
    },
    **in_transformers(
        "convnext", _transformers_network, _base, [name for name in _PLAIN if not _SHAPES[name].v2]
    ),
    **in_transformers(
        "convnextv2", _transformers_network, _base, [name for name in _PLAIN if _SHAPES[name].v2]
    ),
}
