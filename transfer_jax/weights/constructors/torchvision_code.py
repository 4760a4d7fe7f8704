"""The networks of torchvision."""

from typing import Any

from transfer_jax.models.registry import family_of
from transfer_jax.weights.constructors.constructor import Constructor, Exported, call

_SAME_NAME = (
    *(f"resnet{depth}" for depth in (18, 34, 50, 101, 152)),
    *("wide_resnet50_2", "wide_resnet101_2"),
    *("resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d"),
    *(f"vgg{depth}{norm}" for depth in (11, 13, 16, 19) for norm in ("", "_bn")),
    *(f"densenet{depth}" for depth in (121, 161, 169, 201)),
    *("mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small"),
    *(f"efficientnet_b{scale}" for scale in range(5)),
    *(f"efficientnet_v2_{size}" for size in "sml"),
    *(f"convnext_{size}" for size in ("tiny", "small", "base", "large")),
)
_NAMES = {
    **{name: name for name in _SAME_NAME},
    **{f"tv_efficientnet_b{scale}": f"efficientnet_b{scale}" for scale in (5, 6, 7)},
    **{
        f"vit_{size}_patch{patch}_224": f"vit_{size[0]}_{patch}"
        for size in ("base", "large")
        for patch in (16, 32)
    },
    "vit_huge_patch14_224": "vit_h_14",
    **{f"swin_{size}_patch4_window7_224": f"swin_{size[0]}" for size in ("tiny", "small", "base")},
    **{f"swinv2_{size}_window8_256": f"swin_v2_{size[0]}" for size in ("tiny", "small", "base")},
    "inception_v3": "inception_v3",
}


def torchvision_constructor(exported: Exported) -> Constructor | None:
    """Returns the constructor of a network in torchvision; None if torchvision lacks the network."""
    family = family_of(exported.model).name
    name = exported.model if exported.model.startswith("regnet_") else _NAMES.get(exported.model)
    if name is None:
        return None
    options: dict[str, Any] = {}
    if family == "vit" and exported.image_size != 224:
        options = {"image_size": exported.image_size}
    if family == "inception":
        options = {"aux_logits": False, "init_weights": False}
    made = call("torchvision.models.get_model", name, num_classes=exported.outputs, **options)
    arrays = call("load_file", exported.file)
    if name.startswith("swin"):  # The indices of its windows are buffers, which the constructor computes.
        arrays = f"{{**dict(model.named_buffers()), **{arrays}}}"
    code = (
        "import torchvision\nfrom safetensors.torch import load_file\n\n"
        f"model = {made}\nmodel.load_state_dict({arrays})\nmodel.eval()"
    )
    return Constructor(code=code, module="torchvision", runtime="torch")
