"""The networks of timm."""

import re

from transfer_jax.models.flat_arrays import split
from transfer_jax.models.registry import create_model, family_of, variant_of
from transfer_jax.weights.constructors.constructor import Constructor, Exported, call

_TORCHVISION_EPSILON = {"bn_eps": 1e-3}
_NAMES = {
    **{f"efficientnet_lite{scale}": (f"tf_efficientnet_lite{scale}", {}) for scale in range(5)},
    **{
        f"tv_efficientnet_{scale}": (f"efficientnet_{scale}", _TORCHVISION_EPSILON)
        for scale in ("b5", "b6", "b7")
    },
    **{f"efficientnet_v2_{scale}": (f"efficientnetv2_{scale}", _TORCHVISION_EPSILON) for scale in "sml"},
    **{
        f"mobilenet_v3_{size}": (f"mobilenetv3_{size}_100", _TORCHVISION_EPSILON)
        for size in ("large", "small")
    },
    "mobilenet_v2": ("mobilenetv2_100", {}),
    "regnet_y_800mf": ("regnety_008_tv", {}),
    "regnet_y_1_6gf": ("regnety_016", {}),
    "xception": ("legacy_xception", {}),
    "vit_nano_patch8_32": (
        "vit_tiny_patch16_224",
        {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 2},
    ),
}
"""The networks that have another name in timm, or that need options there."""
_ABSENT = re.compile(r"(keras|regnet|siglip)_|dinov2_with_registers_|efficientnet_lite_tiny$|.*_distilled_")
"""The networks that timm lacks: its networks with arrays of the same shapes compute other outputs."""
_SIZED = (
    *("vit", "clip", "siglip", "swin", "swinv2", "hiera", "maxvit", "coatnet", "mixer"),
    *("aimv2", "beit", "dinov3", "eva", "perception_encoder"),
)
"""The families whose networks take images of one size only in timm."""


def timm_constructor(exported: Exported) -> Constructor | None:
    """Returns the constructor of a network in timm; None if timm has none that computes the same."""
    if exported.model not in _NAMES and _ABSENT.match(exported.model):
        return None
    name, options = _NAMES.get(exported.model, (exported.model, {}))
    native = variant_of(exported.model).preprocessing.image_size
    if exported.image_size != native and _has_one_size(exported.model, exported.image_size, native):
        options = {**options, "img_size": exported.image_size}
    made = call(
        "timm.create_model", name, num_classes=exported.outputs, **options, checkpoint_path=exported.file
    )
    return Constructor(code=f"import timm\n\nmodel = {made}.eval()", module="timm", runtime="torch")


def _has_one_size(model: str, *sizes: int) -> bool:
    """Returns whether a network depends on the image size."""
    return family_of(model).name in _SIZED or len({_shapes(model, size) for size in sizes}) > 1


def _shapes(model: str, size: int) -> tuple[tuple[str, tuple[int, ...]], ...]:
    _, params, _ = split(create_model(model, 2, image_size=size, abstract_backbone=True, abstract_head=True))
    return tuple((path, array.shape) for path, array in sorted(params.items()))
